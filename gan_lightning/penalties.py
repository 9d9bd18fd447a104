"""Penalties on the slope of the discriminator (D), and constraints on its weights.

A penalty is called as `penalty(logits, real, fake, labels, mix)` on every update of D and returns a float32 scalar
that is added to D's loss.
    logits: called as `logits(images, labels)`, D's logits.  real, fake: (B, C, H, W) float in [-1, 1].
    labels: (B,) int64, or None.  mix: (B, 1) float in [0, 1), uniform.
A constraint is called as `constraint(discriminator)` after every step of D.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from gan_lightning.losses import Loss, Wasserstein
from gan_lightning.schedules import Schedule

log = logging.getLogger(__name__)

Logits = Callable[[Tensor, Tensor | None], Tensor]


class Penalty(Protocol):
    """The interface of a penalty."""

    schedule: Schedule | None = None  # factor on the weight over the run, see `schedules.py`; None: constant

    def __call__(self, logits: Logits, real: Tensor, fake: Tensor, labels: Tensor | None, mix: Tensor) -> Tensor: ...


class Constraint(Protocol):
    """The interface of a constraint."""

    def __call__(self, discriminator: nn.Module) -> None: ...


class WeightedPenalty(Penalty):
    """A weighted penalty.

    Args:
        weight: factor, as in the penalty's formula.
        schedule: factor on the weight over the run, see `schedules.py`; None: constant.

    Raises:
        ValueError: if the weight is not positive.
    """

    def __init__(self, weight: float, schedule: Schedule | None = None) -> None:
        if weight <= 0:
            raise ValueError(f"weight={weight} must be positive; to train without a penalty: penalty=none")
        self.weight = weight
        self.schedule = schedule


class GradientPenalty(WeightedPenalty):
    """WGAN-GP. Gulrajani et al. 2017, equation 3. https://arxiv.org/abs/1704.00028

    `GP = weight * E[ (||grad_x D(x)|| - 1)^2 ]`, x = u * real + (1 - u) * fake, u uniform in [0, 1) for each pair.

    weight is lambda in the paper, which uses 10.
    """

    def __call__(self, logits: Logits, real: Tensor, fake: Tensor, labels: Tensor | None, mix: Tensor) -> Tensor:
        u = mix.view(-1, 1, 1, 1)
        gradient = slope(logits, (u * real + (1 - u) * fake).to(real.dtype), labels)
        # Not the root of a sum of squares: its derivative at zero is infinite, vector_norm's is 0.
        return self.weight * (torch.linalg.vector_norm(gradient, dim=(1, 2, 3)) - 1).square().mean()


class R1(WeightedPenalty):
    """Zero-centred gradient penalty on real images. Mescheder et al. 2018, equation 9. https://arxiv.org/abs/1801.04406

    `R1 = weight / 2 * E[ ||grad_x D(x)||^2 ]`, D on logits and x real.

    weight is gamma in the paper. The best value depends on the number of pixels and on the learning rates: our recipes
    for 28x28 images in [-1, 1] use 0.3 to 2.4.
    """

    def __call__(self, logits: Logits, real: Tensor, fake: Tensor, labels: Tensor | None, mix: Tensor) -> Tensor:
        return self.weight / 2 * mean_squared_slope(logits, real, labels)


class R2(WeightedPenalty):
    """Zero-centred gradient penalty on generated images. Mescheder et al. 2018, equation 10. https://arxiv.org/abs/1801.04406

    `R2 = weight / 2 * E[ ||grad_x D(x)||^2 ]`, D on logits and x generated.
    """

    def __call__(self, logits: Logits, real: Tensor, fake: Tensor, labels: Tensor | None, mix: Tensor) -> Tensor:
        # Under autocast G's images are bfloat16.
        return self.weight / 2 * mean_squared_slope(logits, fake.to(real.dtype), labels)


class R1R2(WeightedPenalty):
    """R1 and R2 with one weight. R3GAN, Huang et al. 2024, section 2.3. https://arxiv.org/abs/2501.05441

    `weight / 2 * ( E[ ||grad_x D(x)||^2 ] + E[ ||grad_x D(G(z))||^2 ] )`

    weight is gamma in the paper, where it falls to a tenth during the run: use a schedule.
    """

    def __call__(self, logits: Logits, real: Tensor, fake: Tensor, labels: Tensor | None, mix: Tensor) -> Tensor:
        on_real = mean_squared_slope(logits, real, labels)
        return self.weight / 2 * (on_real + mean_squared_slope(logits, fake.to(real.dtype), labels))


def slope(logits: Logits, images: Tensor, labels: Tensor | None) -> Tensor:
    """Gradient of each logit with respect to its image, in float32 even under autocast. Can be differentiated again.

    Returns:
        (B, C, H, W), in the dtype of the images.
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(logits(images, labels).sum(), images, create_graph=True)
    return gradient


def mean_squared_slope(logits: Logits, images: Tensor, labels: Tensor | None) -> Tensor:
    """`E[ ||grad_x D(x)||^2 ]` over these images."""
    return slope(logits, images, labels).square().sum(dim=(1, 2, 3)).mean()


class WeightClipping:
    """Holds every weight of D in [-limit, limit]. WGAN, Arjovsky et al. 2017, algorithm 1. https://arxiv.org/abs/1701.07875

    Args:
        limit: c in the paper, which uses 0.01.

    Raises:
        ValueError: if the limit is not positive.
    """

    def __init__(self, limit: float = 0.01) -> None:
        if limit <= 0:
            raise ValueError(f"limit={limit} must be positive; to train without: constraint=none")
        self.limit = limit

    @torch.no_grad()
    def __call__(self, discriminator: nn.Module) -> None:
        weights: list[Tensor] = list(discriminator.parameters())
        torch._foreach_clamp_min_(weights, -self.limit)
        torch._foreach_clamp_max_(weights, self.limit)


def check_combination(
    discriminator: nn.Module, loss: Loss, penalty: Penalty | None, constraint: Constraint | None
) -> None:
    """Refuse combinations that cannot work, and warn of those that are probably a mistake.

    Raises:
        ValueError: if weights are clipped that spectral normalisation rescales afterwards.
    """
    layers = list(discriminator.modules())
    spectral_norm = any(is_parametrized(layer) for layer in layers)
    if isinstance(constraint, WeightClipping) and spectral_norm:
        raise ValueError(
            "constraint=weight_clipping has no effect on weights that model.discriminator.spectral_norm=true "
            "normalises afterwards; take one: constraint=none, or model.discriminator.spectral_norm=false"
        )
    if penalty and any(isinstance(layer, _BatchNorm) for layer in layers):
        log.warning(
            "the penalty is for D's slope at each image alone, which BatchNorm mixes with those of its batch; "
            "better: model.discriminator.batch_norm=false model.discriminator.init=default, or penalty=none"
        )
    if isinstance(loss, Wasserstein) and not (penalty or constraint or spectral_norm):
        log.warning(
            "loss=wasserstein without a bound on D's slope diverges; add penalty=gradient_penalty, "
            "constraint=weight_clipping, or model.discriminator.spectral_norm=true"
        )
