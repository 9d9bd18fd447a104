"""What a tracker takes besides the numbers that Lightning logs: pictures, texts, settings, the last scores.

A tracker is a Lightning logger that is a `Tracker` too, and a file in conf/logger/. A logger of Lightning's own, or of
somebody else, works as well and gets the numbers alone. Callbacks speak to all trackers of a run through `trackers`.

Shapes: C channels, H height, W width, N samples.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lightning import Trainer
from torch import Tensor


class Tracker:
    """Override what the tracker can show; what it cannot is left out.

    `describe` and `go_on` are called in every process of a run, before training; the others in the first one only.
    """

    # The run's config, `{"optimizer.generator.lr": 1e-3, ...}`, and what of it a score may depend on.
    settings: Mapping[str, Any] = MappingProxyType({})
    hyperparameters: Mapping[str, Any] = MappingProxyType({})

    def describe(self, settings: dict[str, Any], hyperparameters: dict[str, Any]) -> None:
        """Take the settings of the run, before anything is logged."""
        self.settings, self.hyperparameters = settings, hyperparameters

    def go_on(self, iteration: int) -> None:
        """The run is resumed after `iteration` iterations: what was logged after that is computed again."""

    def show_picture(self, tag: str, picture: Tensor, step: int) -> None:
        """Show a picture, (C, H, W) uint8."""

    def show_text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Show a text or a table."""

    def show_classes(self, classes: Tensor, num_classes: int, step: int) -> None:
        """Show how often each class was drawn. `classes`: (N,) int64 in [0, num_classes)."""

    def show_charts(self, charts: dict[str, list[str]]) -> None:
        """Put the curves of several tags on one chart: title -> tags."""

    def how_to_look(self, folder: str) -> str:
        """The command that shows the curves of the runs below a folder, for the end of a run; empty: there is none."""
        return ""

    def show_result(self, scores: dict[str, float]) -> None:
        """Take the last losses and scores of a run that has ended."""


def trackers(trainer: Trainer) -> list[Tracker]:
    """The trackers of a run. None on any device but the first, which speaks for all."""
    return [logger for logger in trainer.loggers if isinstance(logger, Tracker)] if trainer.is_global_zero else []


def show_picture(trainer: Trainer, tag: str, picture: Tensor) -> None:
    """Show a picture, (C, H, W) uint8, in all trackers."""
    for tracker in trackers(trainer):
        tracker.show_picture(tag, picture, trainer.global_step)


def as_markdown(rows: Mapping[str, Any]) -> str:
    """A table of two columns."""
    lines = [f"| `{key}` | `{value}` |" for key, value in rows.items()]
    return "\n".join(["| key | value |", "| --- | --- |", *lines])
