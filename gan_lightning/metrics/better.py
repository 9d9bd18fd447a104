"""The table of metrics: which way is better, how many digits to show, what each says.

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
    says: str
    larger_is_better: bool = False
    in_line: bool = False  # is it in the line that a training writes after each evaluation?
    digits: int = 3  # after the point, in that line


METRICS = {
    metric.name: metric
    for metric in (
        Metric("fid", "Frechet distance from the real images' features", in_line=True),
        Metric("kid", "kernel distance from the real images' features", in_line=True),
        Metric("kid_stderr", "standard error of kid"),
        Metric("precision", "share of samples that look real", larger_is_better=True, in_line=True),
        Metric("recall", "share of real images that samples come near", larger_is_better=True, in_line=True),
        Metric("density", "precision that outliers do not raise", larger_is_better=True),
        Metric("coverage", "recall that outliers do not raise", larger_is_better=True, in_line=True),
        Metric("memorised", "share of samples too near to one training image; 0.01 of real images", in_line=True),
        Metric("nearest_ratio", "distance to the nearest training image; 1 for real images", larger_is_better=True),
        Metric("variety", "spread of the samples over that of real images", larger_is_better=True),
        Metric("inception_score", "are the samples of clear classes, and of all?", larger_is_better=True),
        Metric("sure_share", "share of samples of whose class the judge is sure", larger_is_better=True),
        Metric("conditional_accuracy", "share of the class asked for", larger_is_better=True, in_line=True),
        Metric("class_kl", "KL divergence of the class histogram from the data's"),
        Metric("classes_missing", "classes without one sample"),
        Metric("class_excess", "the most over-drawn class: how many times as often as in the data"),
        Metric("modes", "modes found, of stacked images", larger_is_better=True, in_line=True, digits=0),
        Metric("modes_kl", "KL divergence of the modes from equally frequent ones", in_line=True, digits=4),
        Metric("modes_kl_data", "KL divergence of the modes from the data's, less its bias", in_line=True, digits=4),
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
