"""How networks see the classes of images. How training uses them: `gan_lightning/conditioning.py`.

| conditioning | generator | discriminator |
| --- | --- | --- |
| concat | one-hot label beside z | one-hot label beside the pixels, for convolutions as K planes |
| embedding | learned vector beside z | learned image of the label beside the pixels |
| projection | BatchNorm with a scale and shift by class (r3gan: embedding) | logit = psi(phi(x)) + <embed(y), phi(x)> |
| auxiliary | as concat | does not get the class, but predicts it: (logits, class logits) |

With `projection` the phi(x) of r3gan has one more linear layer than an unconditional D.

Shapes: B batch, F features, C channels, H height, W width, K classes. Labels are (B,) int64 in [0, K).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gan_lightning.models.sizes import check_positive

KINDS = ("none", "concat", "embedding", "projection", "auxiliary")


class Conditional(nn.Module):
    """A layer that is called as `layer(x, labels)`."""


class Layers(nn.Sequential):
    """Layers in a row. Conditional ones get the labels too."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, labels) if isinstance(layer, Conditional) else layer(x)
        return x


class OneHot(Conditional):
    """Put the one-hot label beside x. Mirza & Osindero 2014, section 3.2. https://arxiv.org/abs/1411.1784

    Differs: in the paper x and the label each have a first hidden layer; here they share one.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, F) -> (B, F + K), (B, C, H, W) -> (B, C + K, H, W): the plane of its class is 1, the others 0."""
        code = one_hot(labels, self.num_classes).to(x.dtype)  # (B, K)
        if x.dim() == 4:
            code = code[:, :, None, None].expand(-1, -1, *x.shape[2:])  # (B, K, H, W)
        return torch.cat([x, code], dim=1)


class Embedded(Conditional):
    """Put a learned embedding of the class beside x: as long as x for a vector, one plane for an image.

    Initial entries are N(0, 1), like z; N(0, 1/K) in r3gan's generator.

    Args:
        shape: of x without the batch, (F,) or (C, H, W).
    """

    def __init__(self, num_classes: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape) if len(shape) == 1 else (1, *shape[1:])
        self.embed = nn.Embedding(num_classes, math.prod(self.shape))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, F) -> (B, 2F), (B, C, H, W) -> (B, C + 1, H, W)."""
        return torch.cat([x, self.embed(labels).view(-1, *self.shape)], dim=1)


class ConditionalBatchNorm(Conditional):
    """BatchNorm whose scale and shift depend on the class. Dumoulin et al. 2017, section 2.2; in GANs since
    Miyato & Koyama 2018. https://arxiv.org/abs/1610.07629

    `y = scale_k (x - mean) / std + shift_k`, k the class; the statistics are those of all classes together.

    Args:
        norm: without a scale and shift of its own (`affine=False`).
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, num_classes: int) -> None:
        super().__init__()
        self.norm = norm
        self.scale = nn.Embedding(num_classes, norm.num_features)
        self.shift = nn.Embedding(num_classes, norm.num_features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W) -> the same shape."""
        shape = (*x.shape[:2], *[1] * (x.dim() - 2))
        return self.norm(x) * self.scale(labels).view(shape) + self.shift(labels).view(shape)


class Projection(Conditional):
    """The projection discriminator's last layer. Miyato & Koyama 2018, section 3. https://arxiv.org/abs/1802.05637

    `logit = psi(phi(x)) + <embed(y), phi(x)>`

    phi(x) are all features of the layer before. If that layer sums over the image, as in the paper, they say what is in
    the image; otherwise also where.

    Args:
        psi: features -> one number.
        num_features: F, of one image.
    """

    def __init__(self, psi: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.psi = psi
        self.embed = nn.Embedding(num_classes, num_features)
        nn.init.uniform_(self.embed.weight, -(num_features**-0.5), num_features**-0.5)  # as in a linear layer

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, F) or (B, C, H, W) -> (B,) logits."""
        return self.psi(x).flatten() + (self.embed(labels) * x.flatten(1)).sum(dim=1)


class Classifier(nn.Module):
    """Logits of real against generated, and of the classes. Odena et al. 2017, section 3. https://arxiv.org/abs/1610.09585

    Args:
        logit: the layer that makes it, features -> one number.
        num_features: F, of one image.
    """

    def __init__(self, logit: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.logit = logit
        self.classify = nn.Linear(num_features, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) or (B, C, H, W) -> (B,) logits, (B, K) class logits."""
        return self.logit(x).flatten(), self.classify(x.flatten(1))


def put_beside(conditioning: str, num_classes: int, shape: Sequence[int]) -> tuple[list[nn.Module], int]:
    """The layer, if any, that puts labels beside a network's input, and the number of features or channels after it.

    Args:
        conditioning: one of KINDS.
        num_classes: K; 0 for `none`.
        shape: of the input, (F,) or (C, H, W).

    Raises:
        ValueError: if there is no such conditioning, or it does not work with so many classes.
    """
    if conditioning not in KINDS:
        raise ValueError(f"conditioning={conditioning} must be one of {', '.join(KINDS)}")
    if conditioning == "none" and num_classes:
        raise ValueError(
            f"conditioning=none: with num_classes={num_classes} both networks must look at labels; "
            "choose another for both, such as conditioning=projection"
        )
    if conditioning != "none" and num_classes < 2:
        raise ValueError(
            f"num_classes={num_classes} must be 2 or more for conditioning={conditioning}; "
            "set data.num_classes to the number of classes in the data, or use conditioning=none"
        )
    if conditioning == "concat":
        return [OneHot(num_classes)], shape[0] + num_classes
    if conditioning == "embedding":
        return [Embedded(num_classes, shape)], 2 * shape[0] if len(shape) == 1 else shape[0] + 1
    return [], shape[0]


def put_beside_latent(conditioning: str, num_classes: int, latent_dim: int) -> tuple[list[nn.Module], int]:
    """`put_beside` for a generator. With `auxiliary` it gets the label as with `concat`."""
    check_positive(latent_dim=latent_dim)
    kind = "concat" if conditioning == "auxiliary" else conditioning
    return put_beside(kind, num_classes, (latent_dim,))


def batch_norm_2d(channels: int, conditioning: str, num_classes: int) -> nn.Module:
    """A generator's BatchNorm; with `projection` its scale and shift depend on the class."""
    if conditioning == "projection":
        return ConditionalBatchNorm(nn.BatchNorm2d(channels, affine=False), num_classes)
    return nn.BatchNorm2d(channels)


def head(logit: nn.Module, num_features: int, conditioning: str, num_classes: int) -> list[nn.Module]:
    """A discriminator's last layers: features -> (B,) logits.

    Args:
        logit: the layer that makes it, features -> one number.
        num_features: F, of one image.
    """
    if conditioning == "projection":
        return [Projection(logit, num_features, num_classes)]
    if conditioning == "auxiliary":
        return [Classifier(logit, num_features, num_classes)]
    return [logit, nn.Flatten(start_dim=0)]
