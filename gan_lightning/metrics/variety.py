"""Do samples differ from each other as much as real images do?"""

from torch import Tensor

from gan_lightning.images import normalize


def spread(images: Tensor) -> float:
    """Root mean square distance of images from their mean, per pixel.

    spread = sqrt( 1 / P sum_p Var[x_p] ),   p one of P pixels, x_p in [-1, 1]

    The variety of samples is their spread over that of the training images: 1 if equal, 0 if all samples are alike.

    Args:
        images: (N, C, H, W) uint8; the first 10,000 are used.

    Returns:
        From 0 to about 1.
    """
    return normalize(images[:10_000]).var(dim=0).mean().sqrt().item()
