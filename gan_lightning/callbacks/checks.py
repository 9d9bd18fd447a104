"""Callbacks that a run can do nothing with."""

from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)


def check_callbacks(callbacks: dict[str, Any], has_scores: bool, has_loggers: bool) -> None:
    """Refuse what could not work.

    Args:
        callbacks: by their keys in the config.

    Raises:
        ValueError: for the first of them; the message names its key.
    """
    for key, callback in callbacks.items():
        if not isinstance(callback, Callback):
            raise ValueError(f"{key}={callback} is not a callback; write {key}={{_target_: …}}")
    bars = [key for key, callback in callbacks.items() if isinstance(callback, ProgressBar)]
    if len(bars) > 1:
        raise ValueError(f"{bars[-1]}: there is a progress bar already; add ~{bars[0]}")
    for key, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None) if isinstance(callback, EarlyStopping | ModelCheckpoint) else None
        if str(monitor).startswith("metrics/") and not has_scores:
            raise ValueError(f"{key}.monitor={monitor}: metrics=none has no scores; choose other metrics")
        if isinstance(callback, LearningRateMonitor) and not has_loggers:
            raise ValueError(f"{key}: logger=none draws no curves; choose a logger, or leave it out")
        if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
            raise ValueError(f"{key} averages the weights of one network alone; use ema")
