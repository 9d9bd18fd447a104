"""Augmentation: random changes to every image, real or generated, before the discriminator sees it.

An augmentation is called as `augment(images, chance)` and must let gradients through.
    images: (B, C, H, W) float in [-1, 1].  chance: (B, num_draws) float in [0, 1), uniform.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Augment(Protocol):
    """The interface of an augmentation."""

    num_draws: int  # random numbers for each image

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor: ...


class DiffAugment:
    """DiffAugment. Zhao et al. 2020, section 3.3. https://arxiv.org/abs/2006.10738

    color: brightness by up to 0.5, saturation by a factor in [0, 2), contrast by a factor in [0.5, 1.5).
    translation: by up to an eighth of the image, along each axis.  cutout: a square of half the image's size.
    Pixels that move in or are cut out become 0, middle grey.

    Args:
        policy: some of these names, applied in this order.
        strength: factor on all of these numbers; 0 changes nothing, 1 is as in the paper.

    Raises:
        ValueError: if a name is unknown, or strength is out of range.
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout"), strength: float = 1.0) -> None:
        if not policy or not set(policy) <= POLICIES.keys():
            raise ValueError(
                f"policy={list(policy)} must be some of {', '.join(POLICIES)}; to train without: augment=none"
            )
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength} must lie in [0, 1]; 1 is the paper's")
        self.policy = list(policy)
        self.strength = strength
        self.num_draws = sum(POLICIES[name][0] for name in policy)

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W) of the same dtype, outside [-1, 1] where colours change."""
        changed = images
        for name in self.policy:
            num_draws, change = POLICIES[name]
            changed = change(changed, chance[:, :num_draws], self.strength)
            chance = chance[:, num_draws:]
        return changed.to(images.dtype)


def change_color(x: Tensor, chance: Tensor, strength: float) -> Tensor:
    """chance: (B, 3), for brightness, saturation and contrast."""
    u = strength * (chance - 0.5).view(-1, 3, 1, 1, 1)  # in [-strength / 2, strength / 2)
    x = x + u[:, 0]
    x = x + 2 * u[:, 1] * (x - x.mean(dim=1, keepdim=True))  # no effect where C = 1
    return x + u[:, 2] * (x - x.mean(dim=(1, 2, 3), keepdim=True))


def translate(x: Tensor, chance: Tensor, strength: float) -> Tensor:
    """chance: (B, 2), for height and width."""
    for dim in (2, 3):
        size = x.shape[dim]
        most = int(strength * size / 8 + 0.5)  # pixels
        moved = (chance[:, dim - 2] * (2 * most + 1)).long() - most
        source = torch.arange(size, device=x.device) - moved.unsqueeze(1)  # (B, size), may be outside the image
        inside = along((source >= 0) & (source < size), dim)
        x = x.gather(dim, along(source.clamp(0, size - 1), dim).expand_as(x)) * inside
    return x


def cut_out(x: Tensor, chance: Tensor, strength: float) -> Tensor:
    """chance: (B, 2), for the position of the square, which may reach over the edge."""
    hit = torch.ones((), dtype=torch.bool, device=x.device)
    for dim in (2, 3):
        size = x.shape[dim]
        width = int(strength * size / 2 + 0.5)  # pixels
        start = (chance[:, dim - 2] * (size + 1 - width % 2)).long() - width // 2
        pixel = torch.arange(size, device=x.device) - start.unsqueeze(1)  # (B, size), from the square's edge
        hit = hit & along((pixel >= 0) & (pixel < width), dim)
    return x * ~hit


def along(values: Tensor, dim: int) -> Tensor:
    """(B, H) -> (B, 1, H, 1) for dim 2, (B, W) -> (B, 1, 1, W) for dim 3."""
    return values.view(len(values), 1, *((-1, 1) if dim == 2 else (1, -1)))


Change = Callable[[Tensor, Tensor, float], Tensor]
POLICIES: dict[str, tuple[int, Change]] = {  # how many draws it needs
    "color": (3, change_color),
    "translation": (2, translate),
    "cutout": (2, cut_out),
}
