"""The table of metrics: which way is better, how many digits to show.

The evaluation, checkpoints, sweeps and the leaderboard ask here. A score `x` is `metrics/x` in TensorBoard and in
metrics.json.
"""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["minimize", "maximize"]
DIRECTIONS: tuple[Direction, Direction] = ("minimize", "maximize")


@dataclass(frozen=True)
class Metric:
    name: str
    larger_is_better: bool = False
    in_line: bool = False  # is it in the line that a training writes after each evaluation?
    digits: int = 3  # after the point, in that line


METRICS = {
    metric.name: metric
    for metric in (
        Metric("fid", in_line=True),  # Frechet distance from the real images' features
        Metric("kid", in_line=True),  # kernel distance from the real images' features
        Metric("kid_stderr"),  # standard error of kid
        Metric("precision", larger_is_better=True, in_line=True),  # share of samples that look real
        Metric("recall", larger_is_better=True, in_line=True),  # share of real images that samples come near
        Metric("density", larger_is_better=True),  # precision that outliers do not raise
        Metric("coverage", larger_is_better=True, in_line=True),  # recall that outliers do not raise
        Metric("memorised", in_line=True),  # share of samples too near to one training image; 0.01 of real images
        Metric("nearest_ratio", larger_is_better=True),  # distance to the nearest training image; 1 for real images
        Metric("variety", larger_is_better=True),  # spread of the samples over that of real images
        Metric("inception_score", larger_is_better=True),  # are the samples of clear classes, and of all?
        Metric("sure_share", larger_is_better=True),  # share of samples of whose class the judge is sure
        Metric("conditional_accuracy", larger_is_better=True, in_line=True),  # share of the class asked for
        Metric("class_kl"),  # KL divergence of the class histogram from the data's
        Metric("classes_missing"),  # classes without one sample
        Metric("class_excess"),  # the most over-drawn class: how many times as often as in the data
        Metric("modes", larger_is_better=True, in_line=True, digits=0),  # modes found, of stacked images
        Metric("modes_kl", in_line=True, digits=4),  # KL divergence of the modes from equally frequent ones
        Metric("modes_kl_data", in_line=True, digits=4),  # KL divergence of the modes from the data's, less its bias
    )
}
LARGER = {f"metrics/{metric.name}" for metric in METRICS.values() if metric.larger_is_better} | {
    *("images_per_second", "iterations", "images")  # of metrics.json; all else there is better when smaller
}


def summary(values: dict[str, float], control: dict[str, float]) -> str:
    """Scores beside those of real images, for the line: `fid 6.850 (real 0.080), …`."""
    return ", ".join(
        f"{metric.name} {values[metric.name]:.{metric.digits}f} (real {control[metric.name]:.{metric.digits}f})"
        for metric in METRICS.values()
        if metric.in_line and metric.name in values
    )


def direction_of(metric: str, typed: str | None = None, key: str = "direction") -> Direction:
    """minimize or maximize: what was typed, else what is better for this metric.

    Args:
        metric: a key of metrics.json.
        key: the key that the user typed, for the error.

    Raises:
        ValueError: if something else was typed.
    """
    if typed is None:
        return "maximize" if metric in LARGER else "minimize"
    if typed not in DIRECTIONS:
        raise ValueError(f"{key}={typed} must be {' or '.join(DIRECTIONS)}, or null: as {metric} asks")
    return typed
