"""Multilayer perceptrons, the networks of Goodfellow et al. 2014. https://arxiv.org/abs/1406.2661

Shapes: B batch, Z latent, C channels, H height, W width, K classes.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from gan_lightning.models.init import initialize
from gan_lightning.models.labels import ConditionalBatchNorm, Layers, head, put_beside, put_beside_latent
from gan_lightning.models.layers import MinibatchStd, add_spectral_norm


def _hidden_layers(
    sizes: Sequence[int], negative_slope: float, dropout: float = 0.0, norm_of_classes: int = 0
) -> list[nn.Module]:
    """Linear layers with activations; with `norm_of_classes` classes, a conditional BatchNorm in between."""
    if min(sizes) < 1:
        raise ValueError(f"hidden={list(sizes[1:])}: widths of layers must be 1 or more")
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers.append(nn.Linear(wide, narrow))
        if norm_of_classes:
            layers.append(ConditionalBatchNorm(nn.BatchNorm1d(narrow, affine=False), norm_of_classes))
        layers.append(nn.LeakyReLU(negative_slope) if negative_slope else nn.ReLU())
        if dropout:
            layers.append(nn.Dropout(p=dropout))
    return layers


class Generator(nn.Module):
    """z -> image.

    Args:
        latent_dim: Z.
        image_shape: (C, H, W).
        hidden: widths of the hidden layers, from z to the image.
        negative_slope: LeakyReLU's slope for negative inputs; 0 is ReLU.
        init: initial weights, a name in `models/init.py`.
        conditioning: how it uses labels, a name in `models/labels.py`.
        num_classes: K; 0 for `none`.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (256, 512),
        negative_slope: float = 0.0,
        init: str = "default",
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if conditioning == "projection" and not hidden:
            raise ValueError("hidden=[]: conditioning=projection stands in a hidden layer; try [256]")
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        beside, num_inputs = put_beside_latent(conditioning, num_classes, latent_dim)
        sizes = [num_inputs, *hidden]
        self.layers = Layers(
            *beside,
            *_hidden_layers(sizes, negative_slope, norm_of_classes=num_classes if conditioning == "projection" else 0),
            nn.Linear(sizes[-1], math.prod(image_shape)),
            nn.Tanh(),
        )
        initialize(self, init)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [-1, 1]."""
        return self.layers(z, labels).view(-1, *self.image_shape)


class Discriminator(nn.Module):
    """Image -> logit.

    Args:
        image_shape: (C, H, W).
        hidden: widths of the hidden layers, from the image to the logit.
        negative_slope: LeakyReLU's slope for negative inputs; 0 is ReLU.
        dropout: share of hidden units dropped in training.
        spectral_norm, minibatch_std: see `models/layers.py`.
        init: initial weights, a name in `models/init.py`.
        conditioning: how it uses labels, a name in `models/labels.py`.
        num_classes: K; 0 for `none`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (512, 256),
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        spectral_norm: bool = False,
        minibatch_std: bool = False,
        init: str = "default",
        conditioning: str = "none",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must lie in [0, 1); try 0.4")
        self.num_classes = num_classes
        beside, num_inputs = put_beside(conditioning, num_classes, (math.prod(image_shape),))
        sizes = [num_inputs, *hidden]
        features = sizes[-1] + minibatch_std
        self.layers = Layers(
            nn.Flatten(),
            *beside,
            *_hidden_layers(sizes, negative_slope, dropout),
            *([MinibatchStd()] if minibatch_std else []),
            *head(nn.Linear(features, 1), features, conditioning, num_classes),
        )
        initialize(self, init)
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B,) logits; with `conditioning=auxiliary` also (B, K) class logits."""
        return self.layers(images, labels)
