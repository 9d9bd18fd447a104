"""The curves of a run: losses, probabilities, gradient norms, speed."""

import math
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from gan_lightning.callbacks.checkpoints import diverged


class Scalars(Callback):
    """Log the curves every `trainer.log_every_n_steps` iterations, as means over all devices.

    | tag | what |
    | --- | --- |
    | loss/discriminator, loss/generator, loss/penalty | as minimised; the penalty beside D's loss, not in it |
    | prob/real, prob/fake | mean D(x) and D(G(z)), sigmoid of the logits, before D's update |
    | accuracy/discriminator | share of real and generated images that D tells apart |
    | grad_norm/discriminator, grad_norm/generator | length of the gradient of the last update |
    | lr/discriminator, lr/generator | learning rates |
    | progress/images_per_second, progress/epoch | |

    Raises:
        FloatingPointError: at a logging interval or before a checkpoint is written, if a loss is NaN or infinite.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Tensor] = {}
        self.clock: tuple[float, int] | None = None  # (seconds, iteration) at the last logging interval

    def on_train_epoch_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.clock = (time.perf_counter(), gan.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, gan: LightningModule, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        self.latest.update(outputs)  # G's loss stays from its last turn where n_critic > 1
        if trainer.log_every_n_steps and gan.global_step % trainer.log_every_n_steps == 0:
            self.check_finite(trainer)
            gan.log_dict(
                {**self.means_over_devices(trainer, gan), **self.progress(trainer, gan, len(batch[0]), batch_idx)}
            )

    def on_train_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if self.latest:  # the end of a run is rarely a logging interval
            self.check_finite(trainer)
            final = self.means_over_devices(trainer, gan)
            trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in final.items()})

    def on_save_checkpoint(self, trainer: Trainer, gan: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.check_finite(trainer)  # a checkpoint of a broken run must not take the place of the last good one

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

    def means_over_devices(self, trainer: Trainer, gan: LightningModule) -> dict[str, float]:
        real_logits, fake_logits = self.latest["real_logits"].float(), self.latest["fake_logits"].float()
        scalars = {
            "loss/discriminator": self.latest["d_loss"],
            "prob/real": real_logits.sigmoid().mean(),
            "prob/fake": fake_logits.sigmoid().mean(),
            "accuracy/discriminator": torch.cat([real_logits > 0, fake_logits < 0]).float().mean(),
            "grad_norm/discriminator": gradient_norm(gan.discriminator),
        }
        if "penalty" in self.latest:
            scalars["loss/penalty"] = self.latest["penalty"]
        if "g_loss" in self.latest:
            scalars |= {"loss/generator": self.latest["g_loss"], "grad_norm/generator": gradient_norm(gan.generator)}
        # One transfer for all of them: reading a value makes the host wait for the device.
        values = trainer.strategy.reduce(
            torch.stack([scalar.detach().float() for scalar in scalars.values()]), reduce_op="mean"
        )
        return dict(zip(scalars, values.tolist(), strict=True))

    def progress(self, trainer: Trainer, gan: LightningModule, batch_size: int, batch_idx: int) -> dict[str, float]:
        now, iteration = time.perf_counter(), gan.global_step
        scalars = {
            "step": float(iteration),
            "progress/epoch": trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches,
        }
        if self.clock and iteration > self.clock[1]:
            images = (iteration - self.clock[1]) * batch_size * trainer.world_size
            scalars["progress/images_per_second"] = images / (now - self.clock[0])
        self.clock = (now, iteration)
        for name, optimizer in zip(("discriminator", "generator"), trainer.optimizers, strict=True):
            scalars[f"lr/{name}"] = float(optimizer.param_groups[0]["lr"])
        return scalars


def final_scores(trainer: Trainer) -> dict[str, float]:
    """The last losses and metrics of a run, by tag."""
    latest = trainer.callback_metrics.items()
    return {tag: float(value) for tag, value in latest if tag.startswith(("loss/", "metrics/"))}


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean length of all gradients of a network taken together."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
