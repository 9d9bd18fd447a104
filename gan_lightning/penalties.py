"""What the discriminator (D) pays for a steep slope, and what its weights are held to.

A penalty is called as `penalty(logits, real, fake, labels, mix)` on every update of D and returns a float32 scalar
that is added to D's loss.
    logits: called as `logits(images, labels)`, D's logits.  real, fake: (B, C, H, W) float in [-1, 1].
    labels: (B,) int64, or None.  mix: (B, 1) float in [0, 1), uniform.
A constraint is called as `constraint(discriminator)` after every step of D.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

Logits = Callable[[Tensor, Tensor | None], Tensor]
Schedule = Callable[[int, float], float]


class Penalty(Protocol):
    """What any penalty has."""

    schedule: Schedule | None  # how its weight changes over the run, see `schedules.py`

    def __call__(self, logits: Logits, real: Tensor, fake: Tensor, labels: Tensor | None, mix: Tensor) -> Tensor: ...


class Constraint(Protocol):
    """What any constraint has."""

    def __call__(self, discriminator: nn.Module) -> None: ...


class R1:
    """Zero-centred gradient penalty on real images. Mescheder et al. 2018, equation 9. https://arxiv.org/abs/1801.04406

    `R1 = weight / 2 * E[ ||grad_x D(x)||^2 ]`, D on logits and x real.

    Args:
        weight: gamma in the paper. 0.3 suits 28x28 images in [-1, 1]; it scales with the number of pixels.
    """

    def __init__(self, weight: float, schedule: Schedule | None = None) -> None:
        if weight <= 0:
            raise ValueError(f"penalty.weight={weight} must be positive; to train without a penalty: penalty=none")
        self.weight = weight
        self.schedule = schedule

    def __call__(self, logits: Logits, real: Tensor, fake: Tensor, labels: Tensor | None, mix: Tensor) -> Tensor:
        with torch.autocast(real.device.type, enabled=False):  # a squared gradient needs float32
            real = real.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(logits(real, labels).sum(), real, create_graph=True)
            return self.weight / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
