"""Which of two scores is the better one. Checkpoints, sweeps and the leaderboard ask here."""

from typing import Literal

LARGER = frozenset(
    (
        *("metrics/precision", "metrics/recall", "metrics/density", "metrics/coverage"),
        *("metrics/inception_score", "metrics/sure_share", "metrics/conditional_accuracy", "metrics/modes"),
        *("metrics/variety", "metrics/nearest_ratio"),  # of real images 1; what fails is below
        *("images_per_second", "iterations", "images"),
    )
)  # all others, losses and distances, are better when smaller
Direction = Literal["minimize", "maximize"]
DIRECTIONS: tuple[Direction, Direction] = ("minimize", "maximize")


def direction_of(metric: str, typed: str | None = None, key: str = "direction") -> Direction:
    """minimize or maximize: what was typed, else what the metric asks for.

    Args:
        metric: a name in metrics.json.
        key: what the user typed it as, for the error.

    Raises:
        ValueError: if something else was typed.
    """
    if typed is None:
        return "maximize" if metric in LARGER else "minimize"
    if typed not in DIRECTIONS:
        raise ValueError(f"{key}={typed} must be {' or '.join(DIRECTIONS)}, or null: as {metric} asks")
    return typed
