"""The curves of a run: losses, logits, gradient norms, speed."""

import math
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from gan_lightning.callbacks.saving import diverged
from gan_lightning.losses import Loss


class Scalars(Callback):
    """Log the curves every `trainer.log_every_n_steps` iterations, as means over all devices.

    | tag | what |
    | --- | --- |
    | loss/discriminator, loss/generator, loss/penalty | as minimised; D's loss without the penalty |
    | logit/real, logit/fake | mean of what D returns for real and generated images, before its update |
    | prob/real, prob/fake | mean D(x) and D(G(z)), sigmoid of the logits, where the loss makes that a probability |
    | accuracy/discriminator | share of images that D classifies right, or of pairs that it ranks right |
    | grad_norm/discriminator, grad_norm/generator | length of the gradient of the last update |
    | lr/discriminator, lr/generator | learning rates |
    | progress/images_per_second, progress/epoch | |

    Raises:
        FloatingPointError: at a logging interval or before a checkpoint is written, if a loss is NaN or infinite.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Tensor] = {}
        self.restored: dict[str, float] = {}  # the generator's curves of a resumed run, until its next turn
        self.clock: tuple[float, int] | None = None  # (seconds, iteration) at the last logging interval

    def on_train_epoch_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.clock = (time.perf_counter(), gan.global_step)

    def on_train_batch_start(self, trainer: Trainer, gan: LightningModule, *_: Any) -> None:
        if self.clock is None:  # a run resumed within an epoch does not start one
            self.clock = (time.perf_counter(), gan.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, gan: LightningModule, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        self.latest.update(outputs)  # G's loss stays from its last turn if n_critic > 1
        if trainer.log_every_n_steps and gan.global_step % trainer.log_every_n_steps == 0:
            self.check_finite(trainer)
            write(trainer, self.means(trainer, gan) | self.progress(trainer, gan, len(batch[0]), batch_idx))

    def on_train_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if self.latest:  # the end of a run is rarely a logging interval
            self.check_finite(trainer)
            tell(trainer, self.means(trainer, gan))

    def on_save_checkpoint(self, trainer: Trainer, gan: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.check_finite(trainer)  # a checkpoint of a broken run must not replace the last good one
        # G's curves go on before its next turn, which is up to n_critic iterations away.
        checkpoint["callbacks"][self.state_key] = self.restored | mean_over_devices(trainer, self.generators_turn(gan))

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.restored = {**state}

    def check_finite(self, trainer: Trainer) -> None:
        tags = {"d_loss": "loss/discriminator", "penalty": "loss/penalty", "g_loss": "loss/generator"}
        losses = {tag: self.latest[name] for name, tag in tags.items() if name in self.latest}
        if not losses:
            return
        total = trainer.strategy.reduce(
            torch.stack([loss.detach().float() for loss in losses.values()]), reduce_op="sum"
        )
        for tag, value in zip(losses, total.tolist(), strict=True):
            if not math.isfinite(value):
                raise diverged(trainer, f"{tag} is {value} at iteration {trainer.global_step}")

    def means(self, trainer: Trainer, gan: LightningModule) -> dict[str, float]:
        real_logits, fake_logits = self.latest["real_logits"].float(), self.latest["fake_logits"].float()
        scalars = {
            "loss/discriminator": self.latest["d_loss"],
            "logit/real": real_logits.mean(),
            "logit/fake": fake_logits.mean(),
            "accuracy/discriminator": accuracy(gan.loss, real_logits, fake_logits),
            "grad_norm/discriminator": gradient_norm(gan.discriminator),
        }
        if gan.loss.has_probabilities:
            scalars |= {"prob/real": real_logits.sigmoid().mean(), "prob/fake": fake_logits.sigmoid().mean()}
        if "penalty" in self.latest:
            scalars["loss/penalty"] = self.latest["penalty"]
        return self.restored | mean_over_devices(trainer, scalars | self.generators_turn(gan))

    def generators_turn(self, gan: LightningModule) -> dict[str, Tensor]:
        """Curves of G's last turn; none before the first."""
        if "g_loss" not in self.latest:
            return {}
        return {"loss/generator": self.latest["g_loss"], "grad_norm/generator": gradient_norm(gan.generator)}

    def progress(self, trainer: Trainer, gan: LightningModule, batch_size: int, batch_idx: int) -> dict[str, float]:
        now, iteration = time.perf_counter(), gan.global_step
        scalars = {
            "progress/epoch": trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches,
        }
        if self.clock and iteration > self.clock[1]:
            images = (iteration - self.clock[1]) * batch_size * trainer.world_size
            scalars["progress/images_per_second"] = images / (now - self.clock[0])
        self.clock = (now, iteration)
        for name, optimizer in zip(("discriminator", "generator"), trainer.optimizers, strict=True):
            scalars[f"lr/{name}"] = float(optimizer.param_groups[0]["lr"])
        return scalars


def write(trainer: Trainer, scalars: dict[str, float]) -> None:
    """Write a point of each curve to all loggers.

    Not with Lightning's `log`: it writes after the hook in which a checkpoint may be saved, and again if a run stops
    between two logging intervals.
    """
    tell(trainer, scalars)
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step)
        logger.save()


def tell(trainer: Trainer, scalars: dict[str, float]) -> None:
    """Give them to the Trainer, where the progress bar, the console and the alarms find them."""
    trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in scalars.items()})


def mean_over_devices(trainer: Trainer, scalars: dict[str, Tensor]) -> dict[str, float]:
    """Means over all devices, in one transfer: each read makes the host wait for the device."""
    if not scalars:
        return {}
    values = torch.stack([scalar.detach().float() for scalar in scalars.values()])
    return dict(zip(scalars, trainer.strategy.reduce(values, reduce_op="mean").tolist(), strict=True))


def final_scores(trainer: Trainer) -> dict[str, float]:
    """The last losses and metrics of a run, by tag."""
    latest = trainer.callback_metrics.items()
    return {tag: float(value) for tag, value in latest if tag.startswith(("loss/", "metrics/"))}


def accuracy(loss: Loss, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Share of images on the right side of the threshold; without one, of pairs with a higher real logit."""
    if loss.threshold is None:
        return (real_logits > fake_logits).float().mean()
    return torch.cat([real_logits > loss.threshold, fake_logits < loss.threshold]).float().mean()


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean length of all gradients of a network taken together."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
