"""DCGAN fitted to small images. Radford et al. 2016. https://arxiv.org/abs/1511.06434

The paper's rules (section 3): strided and transposed convolutions only, BatchNorm except at G's output and D's
input, ReLU in G, LeakyReLU 0.2 in D, weights N(0, 0.02). Two stages in place of four: 28x28 is 7x7 doubled twice.
Our defaults differ: D has no BatchNorm, because of gradient penalties, and both networks have PyTorch's initial
weights, because N(0, 0.02) is too small without BatchNorm.

Shapes: B batch, Z latent, C channels, H = W = S size, c base_channels, K classes.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from gan_lightning.models.init import initialize
from gan_lightning.models.labels import Layers, batch_norm_2d, head, put_beside, put_beside_latent
from gan_lightning.models.layers import MinibatchStd, add_spectral_norm
from gan_lightning.models.sizes import check_positive


def _smallest_size(image_shape: Sequence[int]) -> int:
    """The size that is doubled twice on the way to the image, S / 4."""
    _, height, width = image_shape
    if height != width or height % 4:
        raise ValueError(
            f"image_shape={list(image_shape)}: model=dcgan needs square images of a size divisible by 4, such as 28 or "
            "32; resize the data with data.image_shape, or use model=mlp"
        )
    return height // 4


class Generator(nn.Module):
    """z -> image.

    Args:
        latent_dim: Z.
        image_shape: (C, S, S), S divisible by 4.
        base_channels: channels of the last hidden layer; the one before has twice as many.
        conditioning: how it uses labels, a name in `models/labels.py`.
        num_classes: K; 0 for `none`.

    Raises:
        ValueError: if the image is not square, S is not divisible by 4, or base_channels is below 1.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        base_channels: int = 64,
        init: str = "default",
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        check_positive(base_channels=base_channels)
        self.num_classes = num_classes
        channels, size, c = image_shape[0], _smallest_size(image_shape), base_channels
        beside, latent_dim = put_beside_latent(conditioning, num_classes, latent_dim)
        norm = partial(batch_norm_2d, conditioning=conditioning, num_classes=num_classes)
        # No bias before BatchNorm, which has its own.
        self.layers = Layers(
            *beside,
            nn.Unflatten(1, (latent_dim, 1, 1)),
            nn.ConvTranspose2d(latent_dim, 2 * c, kernel_size=size, bias=False),  # (B, 2c, S/4, S/4)
            norm(2 * c),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * c, c, kernel_size=4, stride=2, padding=1, bias=False),  # (B, c, S/2, S/2)
            norm(c),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(c, channels, kernel_size=4, stride=2, padding=1),  # (B, C, S, S)
            nn.Tanh(),
        )
        initialize(self, init)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, Z) -> (B, C, S, S) in [-1, 1]."""
        return self.layers(z, labels)


class Discriminator(nn.Module):
    """Image -> logit.

    Args:
        image_shape: (C, S, S), S divisible by 4.
        base_channels: channels of the first layer; the second has twice as many.
        batch_norm: as in the paper; switch it off for a gradient penalty, which needs the slope at each image alone.
        spectral_norm, minibatch_std: see `models/layers.py`.
        conditioning: how it uses labels, a name in `models/labels.py`.
        num_classes: K; 0 for `none`.

    Raises:
        ValueError: if the image is not square, S is not divisible by 4, or base_channels is below 1.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        base_channels: int = 64,
        batch_norm: bool = False,
        spectral_norm: bool = False,
        minibatch_std: bool = False,
        init: str = "default",
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        check_positive(base_channels=base_channels)
        self.num_classes = num_classes
        size, c = _smallest_size(image_shape), base_channels
        beside, channels = put_beside(conditioning, num_classes, image_shape)
        features = 2 * c + minibatch_std
        self.layers = Layers(
            *beside,
            nn.Conv2d(channels, c, kernel_size=4, stride=2, padding=1),  # (B, c, S/2, S/2)
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(c, 2 * c, kernel_size=4, stride=2, padding=1, bias=not batch_norm),  # (B, 2c, S/4, S/4)
            *([nn.BatchNorm2d(2 * c)] if batch_norm else []),
            nn.LeakyReLU(0.2, inplace=True),
            *([MinibatchStd()] if minibatch_std else []),  # (B, 2c + 1, S/4, S/4)
            *head(nn.Conv2d(features, 1, kernel_size=size), features * size * size, conditioning, num_classes),
        )
        initialize(self, init)
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B,) logits; with `conditioning=auxiliary` also (B, K) class logits."""
        return self.layers(images, labels)
