"""What does not go together, said before training."""

import logging

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from gan_lightning.losses import Loss, Wasserstein
from gan_lightning.penalties import Constraint, Penalty, WeightClipping

log = logging.getLogger(__name__)


def check_combination(
    discriminator: nn.Module, loss: Loss, penalty: Penalty | None, constraint: Constraint | None
) -> None:
    """Refuse what cannot work, warn of what should not be meant.

    Raises:
        ValueError: if weights are to be clipped that are normalised after it.
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
