"""Scores of a run while it trains, through Lightning's validation loop."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from gan_lightning.images import to_uint8
from gan_lightning.metrics.better import summary
from gan_lightning.metrics.judge import Extractor
from gan_lightning.metrics.scores import Reference, Scores, choose, load_reference, score
from gan_lightning.runs.identity import flatten
from gan_lightning.trackers.tracker import as_markdown, trackers

log = logging.getLogger(__name__)

Samples = tuple[Tensor, Tensor | None]  # of a block: images (N, C, H, W) uint8, and the classes asked for (N,)


class Evaluation(Callback):
    """Score the samples of the validation loop against the training split: `metrics/*`, `histogram/classes`.

    The samples come from noise of their own, so that watching changes nothing and every evaluation of every run
    judges the same z; the images are those of one process, however many draw them.

    Args:
        extractor: images -> features and logits, see `metrics/judge.py`.
        cache: folder for the real images' features, or None.
    """

    def __init__(self, extractor: Extractor, cache: Path | None = None) -> None:
        self.extractor = extractor
        self.cache = cache
        self.scores: Scores | None = None  # the latest, and
        self.control: Scores | None = None  # real images scored as if generated; both on the first device only
        self.iteration = 0  # of the latest, on every device
        self.reference: Reference | None = None
        self.samples: dict[int, Samples] = {}

    def setup(self, trainer: Trainer, gan: LightningModule, stage: str) -> None:
        limit = trainer.limit_val_batches
        if trainer.is_global_zero and self.reference is None and limit != 0 and not trainer.fast_dev_run:
            data = trainer.datamodule
            drawn, origin = data.num_drawn(limit), f"metrics.num_samples={data.num_val_samples}"
            images, held_out, labels, trial_of = data.images(), data.images("test"), data.labels("test"), 0
            if drawn < data.num_val_samples:  # told not to draw all, nor look at all real images: that takes minutes
                origin = f"trainer.limit_val_batches={limit} of {origin}: {drawn}"
                some, trial_of = choose(len(held_out), drawn), len(images)
                images, held_out, labels = images[choose(len(images), drawn)], held_out[some], labels[some]
            cache = Path(self.cache) if self.cache else None
            self.reference = load_reference(
                data.name, images, held_out, self.extractor, cache,
                held_out_labels=labels if gan.conditioning.num_classes else None, trial_of=trial_of,
            )  # fmt: skip
            self.reference.check(drawn, origin)

    def on_train_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.iteration = 0

    def on_validation_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.samples = {}

    def on_validation_batch_end(self, trainer: Trainer, gan: LightningModule, outputs: dict[str, Any], *_: Any) -> None:
        self.samples[outputs["block"]] = to_uint8(outputs["images"]).cpu(), outputs["labels"]

    def on_validation_epoch_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if trainer.sanity_checking or trainer.fast_dev_run:  # too few samples for a score
            return
        # A score is no mean of the devices' scores: bring all images to the first one.
        blocks = gather(self.samples)
        self.iteration = gan.global_step
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            assert self.reference
            parts, parts_labels = zip(*(blocks[number] for number in sorted(blocks)), strict=True)
            images, labels = torch.cat(parts), None if parts_labels[0] is None else torch.cat(parts_labels)
            is_first = self.scores is None
            self.scores, self.control = score(images, self.reference, labels), self.reference.control(len(images))
            values = {f"metrics/{name}": value for name, value in self.scores.values.items()}
            self.say(trainer)
            num_classes = len(self.scores.class_counts)
            for tracker in trackers(trainer):
                if num_classes:
                    tracker.show_classes(self.scores.classes, num_classes, gan.global_step)
                if is_first:
                    facts = {key: value for key, value in self.about().items() if key != "iteration"}
                    tracker.show_text("scores", as_markdown(flatten(facts)), gan.global_step)
        values = trainer.strategy.broadcast(values)
        gan.log_dict({"step": float(gan.global_step), **values}, sync_dist=True)

    def say(self, trainer: Trainer) -> None:
        assert self.scores and self.control
        about = self.scores.about
        log.info(
            "epoch %d, %s samples: %s; judge %s %s, against %s",
            num_epochs(trainer),
            f"{about['num_samples']:,}",
            summary(self.scores.values, self.control.values),
            about["judge"],
            str(about["judge_sha256"])[:12],
            about["reference"],
        )

    def about(self) -> dict[str, Any]:
        """What the latest scores mean: their iteration, judge, number of samples and reference, and the control's."""
        assert self.scores and self.control
        control = {key: self.control.about[key] for key in ("samples", "num_samples")} | self.control.values
        return {"iteration": self.iteration, **self.scores.about, "control": control}


class LastScores(Callback):
    """Score the last iteration, whatever ended the run; but not after Ctrl-C: who stops a run does not want to wait."""

    def on_train_end(self, trainer: Trainer, gan: LightningModule) -> None:
        evaluation = evaluation_of(trainer)
        if not evaluation or evaluation.iteration == gan.global_step:
            return
        if trainer.fast_dev_run or not trainer.enable_validation:
            return
        trainer.validating = True  # as Lightning's training loop does
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True


def evaluation_of(trainer: Trainer) -> Evaluation | None:
    """The callback that scores a run, if it has one."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, Evaluation)), None)


def num_epochs(trainer: Trainer) -> int:
    """Epochs that the iterations done belong to; Lightning's count depends on the hook in which it is asked."""
    return math.ceil(trainer.global_step / max(1, trainer.num_training_batches))  # infinitely many before training


def gather(samples: dict[int, Samples]) -> dict[int, Samples]:
    """The samples of all devices, on each of them."""
    if not torch.distributed.is_initialized():
        return samples
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, samples)
    return {number: block for part in parts for number, block in part.items()}
