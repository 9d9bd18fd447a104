"""What is done to every image, real or generated, before the discriminator sees it.

An augmentation is called as `augment(images, chance)` and must let gradients through.
    images: (B, C, H, W) float in [-1, 1].  chance: (B, num_draws) float in [0, 1), uniform.
"""

from typing import Protocol

from torch import Tensor


class Augment(Protocol):
    """What any augmentation has."""

    num_draws: int  # random numbers for each image

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor: ...
