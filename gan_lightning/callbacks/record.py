"""metrics.json: what has become of a run, for people, sweeps and the leaderboard."""

import json
import time
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from gan_lightning import __version__
from gan_lightning.callbacks.evaluation import evaluation_of
from gan_lightning.callbacks.scalars import final_scores
from gan_lightning.files import python, shorten, written_whole
from gan_lightning.runs.folder import overrides
from gan_lightning.runs.resume import save_end, scores_until
from gan_lightning.runs.state import METRICS
from gan_lightning.runs.typed import as_argument, rerun_command
from gan_lightning.terminal import format_seconds
from gan_lightning.trackers.tracker import trackers


class Record(Callback):
    """Write metrics.json after every evaluation, and when the run ends. A run that is killed keeps its latest scores.

    Args:
        seed: of the run.
        ends: max_epochs, max_steps, max_time of the Trainer. A resumed run keeps them in its folder for the next time.
    """

    def __init__(self, seed: int, ends: dict[str, Any]) -> None:
        self.seed = seed
        self.ends = ends
        self.started = time.perf_counter()
        self.resumed_at = 0  # iterations
        self.content: dict[str, Any] = {}  # of metrics.json, on the first device
        self.scored: dict[str, Any] = {}  # before the run was resumed: kept until there are new scores

    def on_train_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.resumed_at = gan.global_step
        if self.resumed_at:
            self.scored = scores_until(Path(trainer.default_root_dir), self.resumed_at)

    def on_train_batch_end(self, trainer: Trainer, gan: LightningModule, *_: Any) -> None:
        # The resumed run works: save its new end.
        if trainer.ckpt_path and gan.global_step == self.resumed_at + 1:
            if trainer.is_global_zero:
                save_end(Path(trainer.ckpt_path), self.ends)
            self.write(trainer, "running")

    def on_validation_end(self, trainer: Trainer, gan: LightningModule) -> None:
        self.write(trainer, "running")

    def on_fit_end(self, trainer: Trainer, gan: LightningModule) -> None:
        self.write(trainer, ending(trainer) or "done")

    def write(self, trainer: Trainer, state: str) -> None:
        scores, seconds = final_scores(trainer), time.perf_counter() - self.started
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        batch_size = trainer.datamodule.batch_size
        content = self.content = self.scored | scores
        evaluation = evaluation_of(trainer)
        if evaluation and evaluation.scores:
            content["scored"] = evaluation.about()
        content |= {
            "state": state,
            "iterations": trainer.global_step,
            "images": trainer.global_step * batch_size,
            "seconds": round(earlier_seconds(trainer) + seconds, 2),
            "images_per_second": round((trainer.global_step - self.resumed_at) * batch_size / seconds, 1),
            "seed": self.seed,
            "versions": versions(),
            "command": rerun_command(overrides()),
        }
        with written_whole(Path(trainer.default_root_dir) / METRICS) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def ending(trainer: Trainer) -> str | None:
    """How a callback has ended the run: stopped | pruned; None where none did."""
    return next((how for callback in trainer.callbacks if (how := getattr(callback, "ending", None))), None)


def earlier_seconds(trainer: Trainer) -> float:
    """Of training before this process resumed the run."""
    return float(getattr(trainer.checkpoint_callback, "earlier_seconds", 0.0))


def versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    packages = {package: version(package) for package in ("torch", "torchvision", "lightning", "hydra-core")}
    return {"python": python_version(), "gan-lightning": __version__, **packages}


def why_early(trainer: Trainer) -> str:
    """What ended a run before the end of its epochs or iterations; empty where nothing did."""
    iterations, epochs = trainer.global_step, trainer.max_epochs
    if iterations == trainer.max_steps or iterations == (epochs or -1) * trainer.num_training_batches:
        return ""
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping) and (told := callback.stopping_reason_message):
            return f"early stopping: {told.partition(' Signaling')[0]}"
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "trainer.max_time is over"
    return "a callback has asked for it"


def summary(trainer: Trainer) -> str:
    """How the run ended, where everything is and what to do next."""
    folder, state = Path(trainer.default_root_dir), ending(trainer) or "done"
    record = next((callback for callback in trainer.callbacks if isinstance(callback, Record)), None)
    name = as_argument(shorten(folder))
    below_outputs = folder.absolute().is_relative_to(Path("outputs").absolute())
    can_sample = (folder / "checkpoints" / "last.ckpt").is_file()  # not after fast_dev_run
    lines = [f"everything is in {name}", f"  pictures     {name}/samples/"]
    if can_sample:
        lines.append(f"  more images  {python()} -m gan_lightning.sample ckpt={name}")
    looks = (tracker.how_to_look("outputs" if below_outputs else name) for tracker in trackers(trainer))
    lines += [f"  curves       {command}" for command in looks if command]
    if state == "stopped":
        lines.append(f"  go on        {python()} -m gan_lightning resume={name}")
    if not record:  # ~control.record
        return "\n".join(lines)
    content, in_all = record.content, f" ({trainer.global_step:,} in all)" if record.resumed_at else ""
    done = trainer.global_step - record.resumed_at
    seconds = format_seconds(content["seconds"] - earlier_seconds(trainer))
    first = [f"{done:,} iterations in {seconds}{in_all}, {content['images_per_second']:,.0f} images per second"]
    if state == "done" and (reason := why_early(trainer)):
        first.append(f"ended early: {reason}")
    scores = (item for item in content.items() if item[0].startswith(("loss/", "metrics/")))
    return "\n".join([*first, *(f"{tag:24} {value:.4f}" for tag, value in scores), *lines])
