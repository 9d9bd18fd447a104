"""SNGAN's residual networks. Miyato et al. 2018, appendix B.4. https://arxiv.org/abs/1802.05957

Up to 32x32 as in the paper's table 3: all layers have c channels, and D halves its image twice. Above, as in table 4
for 48x48, c is the number at a quarter of the image's size, half of it at twice that size, and so on; D halves its
image down to 3 or 4 pixels.

Differs: initial weights have one scale, where the authors' residual branches have a gain of sqrt(2); at 64x64 D's last
block stays at 4x4, where theirs goes to 2x2. The 1x1 convolution of a shortcut works on the smaller of its two images:
it commutes with mean pooling and with nearest-neighbour upsampling, and costs a quarter.

Shapes: B batch, Z latent, C channels, H = W = S size, c base_channels, K classes.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from gan_lightning.models.init import initialize
from gan_lightning.models.labels import Conditional, Layers, batch_norm_2d, head, put_beside, put_beside_latent
from gan_lightning.models.layers import MinibatchStd, add_spectral_norm
from gan_lightning.models.sizes import check_positive, smallest_size

LARGEST_OF_ONE_WIDTH = 32  # pixels


class Residual(Conditional):
    """`shortcut(x) + residual(x)`. He et al. 2016. https://arxiv.org/abs/1512.03385"""

    def __init__(self, residual: Layers, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.shortcut(x) + self.residual(x, labels)


class SumPooling(nn.Module):
    """(B, C, H, W) -> (B, C), the sum over all places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


def _width(size: int, image_size: int, base_channels: int) -> int:
    """Channels at size x size pixels."""
    if image_size <= LARGEST_OF_ONE_WIDTH:
        return base_channels
    return max(1, base_channels * image_size // (4 * size))


def _up(channels_in: int, channels_out: int, norm: Callable[[int], nn.Module]) -> Residual:
    """G's block: (B, C, S, S) -> (B, C', 2S, 2S)."""
    return Residual(
        Layers(
            norm(channels_in),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            _conv(channels_in, channels_out),
            norm(channels_out),
            nn.ReLU(inplace=True),
            _conv(channels_out, channels_out),
        ),
        nn.Sequential(nn.Conv2d(channels_in, channels_out, kernel_size=1), nn.Upsample(scale_factor=2)),
    )


def _down(channels_in: int, channels_out: int, halve: bool, first: bool = False) -> Residual:
    """D's block: (B, C, S, S) -> (B, C', S/2, S/2), or the same size. The first block starts without a ReLU."""
    hidden = channels_out if first else channels_in
    pool = [nn.AvgPool2d(kernel_size=2)] if halve else []
    same = channels_in == channels_out and not halve
    return Residual(
        Layers(
            *([] if first else [nn.ReLU()]),  # not in place: the shortcut looks at it too
            _conv(channels_in, hidden),
            nn.ReLU(inplace=True),
            _conv(hidden, channels_out),
            *pool,
        ),
        nn.Identity() if same else nn.Sequential(*pool, nn.Conv2d(channels_in, channels_out, kernel_size=1)),
    )


class Generator(nn.Module):
    """z -> image.

    Args:
        latent_dim: Z.
        image_shape: (C, S, S), S = 4, 5, 6 or 7 doubled.
        base_channels: c; the paper has 256.
        init: initial weights, a name in `models/init.py`.
        conditioning: how it uses labels, a name in `models/labels.py`.
        num_classes: K; 0 for `none`.

    Raises:
        ValueError: if the image is not of such a size, or base_channels is below 1.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        base_channels: int = 64,
        init: str = "glorot_uniform",
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels, image_size, size = image_shape[0], image_shape[1], smallest_size(image_shape, "resnet")
        check_positive(base_channels=base_channels)
        beside, latent_dim = put_beside_latent(conditioning, num_classes, latent_dim)
        norm = partial(batch_norm_2d, conditioning=conditioning, num_classes=num_classes)
        width = _width(size, image_size, base_channels)
        layers = [*beside, nn.Linear(latent_dim, width * size * size), nn.Unflatten(1, (width, size, size))]
        while size < image_size:
            size *= 2
            before, width = width, _width(size, image_size, base_channels)
            layers.append(_up(before, width, norm))
        self.layers = Layers(*layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True), _conv(width, channels), nn.Tanh())
        initialize(self, init)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, Z) -> (B, C, S, S) in [-1, 1]."""
        return self.layers(z, labels)


class Discriminator(nn.Module):
    """Image -> logit.

    Args:
        image_shape: (C, S, S), S = 4, 5, 6 or 7 doubled.
        base_channels: c; the paper has 128.
        spectral_norm, minibatch_std: see `models/layers.py`.
        init: initial weights, a name in `models/init.py`.
        conditioning: how it uses labels, a name in `models/labels.py`.
        num_classes: K; 0 for `none`.

    Raises:
        ValueError: if the image is not of such a size, or base_channels is below 1.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        base_channels: int = 64,
        spectral_norm: bool = True,
        minibatch_std: bool = False,
        init: str = "glorot_uniform",
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        size = image_size = image_shape[1]
        smallest_size(image_shape, "resnet")
        check_positive(base_channels=base_channels)
        beside, width = put_beside(conditioning, num_classes, image_shape)
        one_width = image_size <= LARGEST_OF_ONE_WIDTH
        layers: list[nn.Module] = []
        while size % 2 == 0 and (len(layers) < 2 if one_width else size > 4):
            size //= 2
            before, width = width, _width(size, image_size, base_channels)
            layers.append(_down(before, width, halve=True, first=not layers))
        for _ in range(2 if one_width else 1):
            before, width = width, width if one_width else 2 * width
            layers.append(_down(before, width, halve=False))
        features = width + minibatch_std
        self.layers = Layers(
            *beside,
            *layers,
            nn.ReLU(inplace=True),
            *([MinibatchStd()] if minibatch_std else []),
            SumPooling(),
            *head(nn.Linear(features, 1), features, conditioning, num_classes),
        )
        initialize(self, init)
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B,) logits; with `conditioning=auxiliary` also (B, K) class logits."""
        return self.layers(images, labels)
