"""Write the checkpoints that a run can be resumed from."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from gan_lightning.metrics.better import direction_of
from gan_lightning.runs.place import set_place


class Checkpoints(Checkpoint):
    """`checkpoints/last.ckpt` after every epoch and when the run stops, `checkpoints/best.ckpt` at the best score.

    Lightning's ModelCheckpoint is not used. Where its files resume depends on the hook that wrote them (a stop within
    an epoch counts as its end), and they hold paths that a resumed run would follow.

    Args:
        every_n_steps: iterations between saves within an epoch; None: save only at its end.
        monitor: the score that best.ckpt is chosen by; metrics/better.py knows if less or more is better.

    Raises:
        ValueError: if every_n_steps is below 1.
    """

    def __init__(self, every_n_steps: int | None = None, monitor: str = "metrics/fid") -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be 1 or more, or null")
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.sign = 1 if direction_of(monitor) == "minimize" else -1
        self.best: float | None = None
        self.latest: Path | None = None  # file
        self.is_behind = False  # last.ckpt was written before the latest scores
        self.earlier_seconds = 0.0  # of training before this process resumed the run
        self.started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.started = time.perf_counter()
        self.latest = Path(trainer.ckpt_path) if trainer.ckpt_path else None

    def on_train_batch_end(self, trainer: Trainer, gan: LightningModule, *_: Any) -> None:
        # The last iteration of an epoch is saved later, after its scores and pictures.
        within = gan.global_step % trainer.num_training_batches
        if self.every_n_steps and within and gan.global_step % self.every_n_steps == 0:
            self.save(trainer, "last")

    def on_validation_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self.is_behind = True
        scores = [name for name in trainer.callback_metrics if name.startswith("metrics/")]
        if scores and self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"callbacks.checkpoint.monitor={self.monitor} is not a score; it is one of {', '.join(scores)}"
            )
        score = trainer.callback_metrics.get(self.monitor)
        if score is not None and (self.best is None or self.sign * score < self.sign * self.best):
            self.best = float(score)
            self.save(trainer, "best")

    def on_train_epoch_end(self, trainer: Trainer, gan: LightningModule) -> None:
        self.save(trainer, "last")

    def on_train_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if self.is_behind:
            self.save(trainer, "last")

    def save(self, trainer: Trainer, name: str) -> None:
        file = Path(trainer.default_root_dir) / "checkpoints" / f"{name}.ckpt"
        for logger in trainer.loggers:
            logger.save()  # pictures wait in memory, and a run resumed from here does not make them again
        trainer.save_checkpoint(file)
        self.latest = file
        self.is_behind = self.is_behind and name != "last"

    def on_save_checkpoint(self, trainer: Trainer, gan: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the place in the run as between two iterations, whatever hook Lightning is in.

        Raises:
            FloatingPointError: if a weight is NaN or infinite, so that a good checkpoint is not replaced.
        """
        weights = [weight for weight in checkpoint["state_dict"].values() if weight.is_floating_point()]
        if not torch.nn.utils.get_total_norm(weights).isfinite():
            raise diverged(trainer, f"a weight is NaN or infinite after iteration {trainer.global_step}")
        set_place(checkpoint["loops"]["fit_loop"], trainer.global_step, int(trainer.num_training_batches))

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "best": self.best,
            "seconds": self.earlier_seconds + time.perf_counter() - self.started,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        is_same = state["monitor"] == self.monitor
        self.best = state["best"] + 0.0 if is_same and state["best"] is not None else None  # a text raises TypeError
        self.earlier_seconds = state["seconds"] + 0.0


def diverged(trainer: Trainer, what: str) -> FloatingPointError:
    """The error for a number that is NaN or infinite: it names the last good checkpoint and what to try."""
    latest = getattr(trainer.checkpoint_callback, "latest", None) or "none yet"
    return FloatingPointError(
        f"{what}; last good checkpoint: {latest}; try a smaller optimizer.discriminator.lr and optimizer.generator.lr"
    )
