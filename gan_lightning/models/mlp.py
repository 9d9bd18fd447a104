"""Multilayer perceptrons, the networks of Goodfellow et al. 2014. https://arxiv.org/abs/1406.2661

Shapes: B batch, Z latent, C channels, H height, W width.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from gan_lightning.models.init import initialize
from gan_lightning.models.layers import MinibatchStd, add_spectral_norm


def _hidden_layers(sizes: Sequence[int], negative_slope: float, dropout: float) -> list[nn.Module]:
    if min(sizes) < 1:
        raise ValueError(f"model.*.hidden: layer widths {list(sizes)} must be 1 or more")
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.LeakyReLU(negative_slope) if negative_slope else nn.ReLU()]
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
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (256, 512),
        negative_slope: float = 0.0,
        init: str = "default",
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        sizes = [latent_dim, *hidden]
        self.layers = nn.Sequential(
            *_hidden_layers(sizes, negative_slope, dropout=0.0), nn.Linear(sizes[-1], math.prod(image_shape)), nn.Tanh()
        )
        initialize(self, init)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, Z) -> (B, C, H, W) in [-1, 1]."""
        return self.layers(z).view(-1, *self.image_shape)


class Discriminator(nn.Module):
    """Image -> logit.

    Args:
        image_shape: (C, H, W).
        hidden: widths of the hidden layers, from the image to the logit.
        negative_slope: LeakyReLU's slope for negative inputs; 0 is ReLU.
        dropout: share of hidden units that is dropped in training.
        spectral_norm, minibatch_std: see `models/layers.py`.
        init: initial weights, a name in `models/init.py`.
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
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"model.discriminator.dropout={dropout} must lie in [0, 1); try 0.4")
        sizes = [math.prod(image_shape), *hidden]
        self.layers = nn.Sequential(
            nn.Flatten(),
            *_hidden_layers(sizes, negative_slope, dropout),
            *([MinibatchStd()] if minibatch_std else []),
            nn.Linear(sizes[-1] + minibatch_std, 1),
        )
        initialize(self, init)
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B,) logits."""
        return self.layers(images).squeeze(1)
