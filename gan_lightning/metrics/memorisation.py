"""Does the generator copy training images?"""

from typing import NamedTuple

import torch
from torch import Tensor

from gan_lightning.images import normalize
from gan_lightning.metrics.neighbours import nearest


class PixelSpace(NamedTuple):
    """Images as coordinates along the training images' principal axes. P pixels, D axes.

    Copies are looked for in pixels, because the judge's features are alike for different images of one class. 64 axes
    are several times faster than the 784 pixels of MNIST, and leave out much noise. Share of copies found on
    Fashion-MNIST with noise of 32 grey levels: 61 % (with all pixels 28 %); of blurred copies 15 % (1 %).
    """

    mean: Tensor  # (P,) float32
    axes: Tensor  # (P, D) float32, orthonormal

    def locate(self, images: Tensor, rows: int = 2000) -> Tensor:
        """(N, C, H, W) uint8 -> coordinates (N, D) float32."""
        parts = [(normalize(part).flatten(1) - self.mean) @ self.axes for part in images.split(rows)]
        return torch.cat(parts)


def pixel_space(images: Tensor, num_axes: int = 64, num_images: int = 10_000) -> PixelSpace:
    """The principal axes of images (N, C, H, W) uint8, from about num_images of them, spread evenly."""
    some = normalize(images[:: max(1, len(images) // num_images)]).flatten(1)
    mean = some.mean(dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # pca_lowrank starts from random directions
        _, _, axes = torch.pca_lowrank(some - mean, q=min(num_axes, *some.shape), center=False, niter=4)
    return PixelSpace(mean, axes)


class Nearness(NamedTuple):
    """The nearest training image of each sample, and how near it is."""

    distance: Tensor  # (N,) float32, to the nearest training image
    ratio: Tensor  # (N,) float32 in [0, 1]: that distance over the mean distance to the next k training images
    image: Tensor  # (N,) int64, the nearest training image


def nearness(points: Tensor, training: Tensor, k: int = 5) -> Nearness:
    """Nearest training images of samples, and how much nearer the nearest is than the next ones.

    ratio(x) = d(x, t_1) / mean(d(x, t_2), ..., d(x, t_(k+1))),   t_i the i-th nearest training image

    As in Carlini et al. 2023, section 5.1 (there with the 50 nearest, t_1 included). https://arxiv.org/abs/2301.13188
    A distance alone says little: all digits 1 are close to each other, but hardly any ankle boots are.

    Args:
        points: (N, D) float32.  training: (T, D) float32, coordinates in one PixelSpace.
    """
    distances, indices = nearest(points, training, k + 1)
    ratio = distances[:, 0] / distances[:, 1:].mean(dim=1).clamp(min=1e-12)
    return Nearness(distances[:, 0], ratio, indices[:, 0])


def memorisation(fake: Nearness, held_out: Nearness) -> tuple[float, float]:
    """How many generated samples are nearer to one training image than held-out images are?

    memorised     = 1 / N sum_j 1[ ratio(y_j) <= q ],   q the 0.01 quantile of ratio(x) over held-out images x
    nearest_ratio = median_j d(y_j) / median_x d(x),    d the distance to the nearest training image

    y_j one of N generated samples; d and ratio as in `nearness`.

    Returns:
        memorised: 0.01 for images as new as held-out ones, 1 for training images. Blank images, noise and samples of
            one dense class stay near or below 0.01, because they are near to many training images, or to none.
        nearest_ratio: 1 for images as new as held-out ones, 0 for training images. It also falls for samples that are
            smoother or of denser classes, so it is only a hint.
    """
    memorised = (fake.ratio <= held_out.ratio.quantile(0.01)).double().mean()
    return memorised.item(), (fake.distance.median() / held_out.distance.median()).item()
