"""Layers that stabilise a discriminator."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gan_lightning.models.labels import Embedded


class MinibatchStd(nn.Module):
    """Add one feature: how much the images of a group differ. Karras et al. 2018, section 3. https://arxiv.org/abs/1710.10196

    The standard deviation of every feature over a group of images, averaged to one number, is given to each image of
    the group. Groups are consecutive images, so that several devices compute the same as one.

    Args:
        group_size: images in a group. Training refuses a batch whose size is not a multiple of it; elsewhere groups
            are smaller then.
    """

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, ...) -> (B, F + 1, ...)."""
        size = math.gcd(len(x), self.group_size)
        if self.training and size < self.group_size:
            raise ValueError(
                f"data.batch_size: a device's share of it, {len(x)}, must be divisible by {self.group_size} for "
                "model.discriminator.minibatch_std=true"
            )
        groups = x.unflatten(0, (-1, size))  # (B / size, size, F, ...)
        # 1e-8 as in the authors' code: the root has no finite slope at 0.
        std = (groups.var(dim=1, correction=0) + 1e-8).sqrt().flatten(1).mean(dim=1)  # (B / size,)
        feature = std.repeat_interleave(size).view(-1, *[1] * (x.dim() - 1))
        return torch.cat([x, feature.expand(-1, 1, *x.shape[2:])], dim=1)


def add_spectral_norm(network: nn.Module) -> None:
    """Divide every weight by its largest singular value. Miyato et al. 2018, section 2.1. https://arxiv.org/abs/1802.05957

    `W / sigma(W)`, sigma by one power iteration for each pass in training; a convolution's W is (out, in * k * k).
    The embedding that `conditioning=embedding` puts beside the pixels is left alone: it is part of the image.
    """
    inputs = [layer.embed for layer in network.modules() if isinstance(layer, Embedded)]
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding) and layer not in inputs:
            parametrizations.spectral_norm(layer)
