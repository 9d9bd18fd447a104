"""What a run says in the terminal and in train.log."""

import logging
import sys
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from gan_lightning.callbacks.network_table import network_rows, rich_table
from gan_lightning.terminal import format_seconds, printer

log = logging.getLogger(__name__)


class ProgressBar(RichProgressBar):
    """Losses, epoch and time left, in a terminal; nothing in a pipe, where `Console` prints lines."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)  # iterations; each refresh costs as much as a tenth of a small step
        if not sys.stdout.isatty():
            self.disable()

    def _get_train_description(self, current_epoch: int) -> str:
        # As everywhere else: the first epoch is number 1. Lightning's bar has its own count, from 0.
        limit = self.trainer.max_epochs
        return f"Epoch {current_epoch + 1}/{limit}" if limit and limit > 0 else f"Epoch {current_epoch + 1}"

    def get_metrics(self, trainer: Trainer, gan: LightningModule) -> dict[str, Any]:
        losses = {"D": "loss/discriminator", "G": "loss/generator"}
        metrics = trainer.callback_metrics
        return {name: f"{metrics[tag]:.3f}" for name, tag in losses.items() if tag in metrics}


class Console(Callback):
    """The networks before training, then a line every `every_n_steps` iterations.

    Where there is no terminal the lines go to the output, and always to train.log.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be 1 or more; try 200")
        self.every_n_steps = every_n_steps
        self.line_level = logging.DEBUG if sys.stdout.isatty() else logging.INFO  # the console shows INFO

    def on_train_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.started = (time.perf_counter(), gan.global_step)
        if not trainer.is_global_zero:
            return
        terminal = printer(force_terminal=False)  # plain text: train.log has the same lines
        with terminal.capture() as table:
            terminal.print(rich_table(network_rows(gan)))
        log.info(table.get().rstrip())
        data = trainer.datamodule
        if data is not None:
            images = data.images()
            log.info(
                "%s real images of %s, uint8 [%d, %d] normalized to [-1, 1]; %d in a batch, %d batches in an epoch",
                f"{len(images):,}", " x ".join(str(size) for size in images.shape[1:]), images.min(), images.max(),
                data.batch_size, trainer.num_training_batches,
            )  # fmt: skip

    def on_train_batch_end(
        self, trainer: Trainer, gan: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        iteration = gan.global_step
        if iteration % self.every_n_steps or not trainer.is_global_zero:
            return
        seconds, done = time.perf_counter() - self.started[0], iteration - self.started[1]
        total = trainer.estimated_stepping_batches
        metrics = trainer.callback_metrics
        losses = [
            f"{name} loss {metrics[tag]:.4f}"
            for name, tag in (("D", "loss/discriminator"), ("G", "loss/generator"))
            if tag in metrics
        ]
        left = f"{format_seconds(seconds / done * (total - iteration))} left" if total != float("inf") else "no end set"
        log.log(
            self.line_level,
            "epoch %d, iteration %d of %s: %s",
            trainer.current_epoch + 1,
            iteration,
            total,
            ", ".join([*losses, left]),
        )
