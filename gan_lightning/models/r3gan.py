"""R3GAN's networks, without normalisation. Huang et al. 2024, section 3. https://arxiv.org/abs/2501.05441

G and D mirror each other: residual blocks at 4x4 (for 28x28 at 7x7), at twice that size, and so on up to the image's,
bilinear resampling in between. Initial weights as in Fix-up (Zhang et al. 2019): every block is the identity.

Differs: G ends with tanh. The width of a block is `min(max_channels, base_channels * S / size)`, a rule that gives the
widths of all presets in the authors' code. The logit of a conditional D also has a part that does not depend on the
class: 768 of 21.28 million weights at the authors' sizes for CIFAR-10.

Shapes: B batch, Z latent, C channels, H = W = S size, c width of a block, K classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from gan_lightning.models.labels import Embedded, Layers, Projection, head, put_beside, put_beside_latent
from gan_lightning.models.sizes import check_positive, smallest_size

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # undoes LeakyReLU's loss of variance. He et al. 2015, section 2.2


def scaled(layer: nn.Conv2d | nn.Linear | nn.Embedding, gain: float = 1.0) -> nn.Module:
    """The layer with weights N(0, gain^2 / fan_in), biases 0; the fan-in of an embedding is its number of classes."""
    fan_in = layer.num_embeddings if isinstance(layer, nn.Embedding) else layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _head(width: int, conditioning: str, num_classes: int) -> list[nn.Module]:
    """D's last layers: (B, c) -> (B,) logits. With `projection`, a linear layer mixes the features before."""
    logit = scaled(nn.Linear(width, 1, bias=False))
    layers = head(logit, width, conditioning, num_classes)
    if not isinstance(layers[0], Projection):
        return layers
    scaled(layers[0].embed, gain=width**-0.5)
    return [scaled(nn.Linear(width, width, bias=False)), *layers]


class Block(nn.Module):
    """`x + W3 a(W2 a(W1 x))`, with a: bias and LeakyReLU. 1x1 to more channels, 3x3 within groups, 1x1 back.

    Args:
        width: c.
        expansion: channels in the middle for each channel of x.
        group_width: channels of a group in the middle.
        num_blocks: L of the network; its W1 and W2 are smaller by L^(-1/4), its W3 is 0. Zhang et al. 2019, section 3
    """

    def __init__(self, width: int, expansion: int, group_width: int, num_blocks: int) -> None:
        super().__init__()
        middle = expansion * width
        gain = GAIN * num_blocks**-0.25
        self.residual = nn.Sequential(
            scaled(nn.Conv2d(width, middle, kernel_size=1), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            scaled(nn.Conv2d(middle, middle, kernel_size=3, padding=1, groups=middle // group_width), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            scaled(nn.Conv2d(middle, width, kernel_size=1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class Resample(nn.Module):
    """Bilinear resampling by 2, with zeros around the image: the kernel [1, 2, 1] * [1, 1] = [1, 3, 3, 1] both ways."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", line.outer(line)[None, None])  # (1, 1, 4, 4), of sum 1


class Upsample(Resample):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        channels = x.shape[1]
        return conv_transpose2d(x, 4 * self.kernel.expand(channels, -1, -1, -1), stride=2, padding=1, groups=channels)


class Downsample(Resample):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        channels = x.shape[1]
        return conv2d(x, self.kernel.expand(channels, -1, -1, -1), stride=2, padding=1, groups=channels)


class Basis(nn.Module):
    """G's smallest image: one learned plane for each channel, initial entries N(0, 1)."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.planes = nn.Parameter(torch.randn(width, size, size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c) -> (B, c, H, W): each plane times its coefficient."""
        return x[:, :, None, None] * self.planes


def _stages(
    image_shape: Sequence[int],
    base_channels: int,
    max_channels: int,
    num_blocks: int,
    expansion: int,
    group_width: int,
) -> list[tuple[int, list[Block]]]:
    """Width and blocks of each size, from the smallest to the image's.

    Raises:
        ValueError: if the image has a size that this family cannot make, or a number is out of range.
    """
    check_positive(
        base_channels=base_channels,
        max_channels=max_channels,
        num_blocks=num_blocks,
        expansion=expansion,
        group_width=group_width,
    )
    smallest, image_size = smallest_size(image_shape, "r3gan"), image_shape[1]
    num_sizes = (image_size // smallest).bit_length()  # 28 is 7 * 4, 0b100: three sizes
    stages = []
    for i in reversed(range(num_sizes)):
        width = min(max_channels, base_channels * 2**i)
        if expansion * width % group_width:
            raise ValueError(
                f"group_width={group_width} must divide the {expansion * width} channels in the middle "
                f"of a block; try {math.gcd(expansion * width, group_width)}"
            )
        blocks = [Block(width, expansion, group_width, num_blocks * num_sizes) for _ in range(num_blocks)]
        stages.append((width, blocks))
    return stages


class Generator(nn.Module):
    """z -> image. The smallest image is a learned basis, each plane times a coefficient computed from z.

    Args:
        latent_dim: Z.
        image_shape: (C, S, S), S = 4, 5, 6 or 7 doubled.
        base_channels: width of the blocks at the image's size; it doubles each time the size is halved.
        max_channels: upper limit of the width.
        num_blocks: blocks at each size.
        expansion: channels in the middle of a block, for each channel of its width.
        group_width: channels of a group in the middle; their number is the paper's cardinality.
        conditioning: how it uses labels, a name in `models/labels.py`; `projection` is `embedding` here, as in the
            paper, because there is no BatchNorm.
        num_classes: K; 0 for `none`.

    Raises:
        ValueError: if the image is not of such a size, or group_width does not divide a block's middle.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        base_channels: int = 64,
        max_channels: int = 256,
        num_blocks: int = 2,
        expansion: int = 2,
        group_width: int = 16,
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        kind = "embedding" if conditioning == "projection" else conditioning
        beside, latent_dim = put_beside_latent(kind, num_classes, latent_dim)
        for layer in beside:
            if isinstance(layer, Embedded):
                scaled(layer.embed)
        numbers = base_channels, max_channels, num_blocks, expansion, group_width
        (width, blocks), *larger = _stages(image_shape, *numbers)
        basis = Basis(width, smallest_size(image_shape, "r3gan"))
        layers = [*beside, scaled(nn.Linear(latent_dim, width, bias=False)), basis, *blocks]
        for next_width, blocks in larger:
            if next_width != width:
                layers.append(scaled(nn.Conv2d(width, next_width, kernel_size=1, bias=False)))
            layers += [Upsample(), *blocks]
            width = next_width
        self.layers = Layers(*layers, scaled(nn.Conv2d(width, image_shape[0], kernel_size=1, bias=False)), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, Z) -> (B, C, S, S) in [-1, 1]."""
        return self.layers(z, labels)


class Discriminator(nn.Module):
    """Image -> logit. At the end each channel of the smallest image is multiplied by a learned plane and summed.

    Args:
        image_shape: (C, S, S), S = 4, 5, 6 or 7 doubled.
        base_channels, max_channels, num_blocks, expansion, group_width: as in the generator.
        conditioning: how it uses labels, a name in `models/labels.py`.
        num_classes: K; 0 for `none`.

    Raises:
        ValueError: if the image is not of such a size, or group_width does not divide a block's middle.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        base_channels: int = 64,
        max_channels: int = 256,
        num_blocks: int = 2,
        expansion: int = 2,
        group_width: int = 16,
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        beside, channels = put_beside(conditioning, num_classes, image_shape)
        numbers = base_channels, max_channels, num_blocks, expansion, group_width
        *smaller, (width, blocks) = _stages(image_shape, *numbers)
        layers = [*beside, scaled(nn.Conv2d(channels, width, kernel_size=1, bias=False)), *blocks]
        for next_width, blocks in reversed(smaller):
            layers.append(Downsample())
            if next_width != width:
                layers.append(scaled(nn.Conv2d(width, next_width, kernel_size=1, bias=False)))
            layers += blocks
            width = next_width
        size = smallest_size(image_shape, "r3gan")
        basis = scaled(nn.Conv2d(width, width, kernel_size=size, groups=width, bias=False))  # (B, c, 1, 1)
        self.layers = Layers(*layers, basis, nn.Flatten(), *_head(width, conditioning, num_classes))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B,) logits; with `conditioning=auxiliary` also (B, K) class logits."""
        return self.layers(images, labels)
