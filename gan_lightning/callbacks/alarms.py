"""Warnings about the ways in which a GAN fails."""

import logging
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gan_lightning.callbacks.scalars import write

log = logging.getLogger(__name__)

PENALTY = "larger penalty.weight"
ADVICE = {  # keys that every config has, and no default values
    "mode_collapse": f"larger trainer.max_epochs, {PENALTY}, smaller optimizer.generator.lr",
    "dead_generator": "another seed, smaller optimizer.generator.lr",
    "memorisation": f"smaller trainer.max_epochs, {PENALTY}, or more images to train on",
    "discriminator_won": f"smaller optimizer.discriminator.lr, {PENALTY}, or a larger generator",
    "vanishing_gradient": f"smaller optimizer.discriminator.lr, {PENALTY}",
    "exploding_gradient": "max_gradient_norm=10, smaller optimizer.discriminator.lr and optimizer.generator.lr, "
    + PENALTY,
}


def advice(alarm: str, gan: LightningModule) -> str:
    """What to try next. A run without a penalty is told to add one."""
    return ADVICE[alarm] if gan.penalty else ADVICE[alarm].replace(PENALTY, "penalty=r1")


class Alarms(Callback):
    """Set `alarm/<name>` to 1 while it lasts; when it begins, warn in a line that says what to try.

    | alarm | what |
    | --- | --- |
    | mode_collapse | a class is missing among the samples, or one is drawn over twice as often as in the data |
    | dead_generator | the spread of the samples is less than a tenth of that of real images |
    | memorisation | over a tenth of the samples are too near to one training image; real images: a hundredth |
    | discriminator_won | D(G(z)) below 0.02 and D(x) above 0.98 for `patience` iterations, if they are probabilities |
    | vanishing_gradient, exploding_gradient | a gradient's norm below 1e-6 or above 1e3 for `patience` iterations |

    The first three are checked at every evaluation, the others at every logging interval.

    Args:
        patience: iterations that a state must last.
    """

    def __init__(self, patience: int = 1000) -> None:
        self.patience = patience
        self.since: dict[str, int] = {}  # iteration at which a state began
        self.raised: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        return {"since": dict(self.since), "raised": sorted(self.raised)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.since, self.raised = dict(state["since"]), set(state["raised"])

    def on_train_batch_end(self, trainer: Trainer, gan: LightningModule, *_: Any) -> None:
        now, every = trainer.callback_metrics, trainer.log_every_n_steps
        if not every or gan.global_step % every or "grad_norm/discriminator" not in now:  # no curves are written
            return
        norms = [float(now[tag]) for tag in ("grad_norm/discriminator", "grad_norm/generator") if tag in now]
        states = {"vanishing_gradient": min(norms) < 1e-6, "exploding_gradient": max(norms) > 1e3}
        if "prob/fake" in now:
            states["discriminator_won"] = bool(now["prob/fake"] < 0.02 and now["prob/real"] > 0.98)
        alarms: dict[str, float] = {}
        for name, present in states.items():
            began = self.since.setdefault(name, gan.global_step) if present else self.since.pop(name, None)
            alarms |= self.sound(gan, name, bool(present) and gan.global_step - began >= self.patience)
        write(trainer, alarms)

    def on_validation_epoch_end(self, trainer: Trainer, gan: LightningModule) -> None:
        now = trainer.callback_metrics
        alarms: dict[str, float] = {}
        if "metrics/classes_missing" in now:
            collapsed = now["metrics/classes_missing"] > 0 or now["metrics/class_excess"] > 2
            alarms |= self.sound(gan, "mode_collapse", bool(collapsed))
        if "metrics/fid" in now:
            alarms |= self.sound(gan, "dead_generator", bool(now["metrics/variety"] < 0.1))
            alarms |= self.sound(gan, "memorisation", bool(now["metrics/memorised"] > 0.1))
        # sync_dist: Lightning wants it from all that log a `step` in this hook; the values are equal anyway.
        if alarms:
            gan.log_dict({"step": float(gan.global_step), **alarms}, sync_dist=True)

    def sound(self, gan: LightningModule, name: str, on: bool) -> dict[str, float]:
        """Warn if the alarm begins; returns its point on the curve."""
        if on and name not in self.raised:
            log.warning("alarm: %s at iteration %d; try %s", name.replace("_", " "), gan.global_step, advice(name, gan))
        (self.raised.add if on else self.raised.discard)(name)
        return {f"alarm/{name}": float(on)}
