"""Which run was best: all runs below a folder, the best first. Runs that differ only in their seed share a row."""

import difflib
import logging
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from gan_lightning.files import shorten
from gan_lightning.metrics.better import direction_of
from gan_lightning.runs.folder import read_config, typed_overrides
from gan_lightning.runs.identity import setting
from gan_lightning.runs.state import STATES, RunState, run_seconds, run_state
from gan_lightning.runs.typed import rerun_command
from gan_lightning.terminal import one_line

log = logging.getLogger(__name__)

SWEEP_LOG = "sweep.log"  # in a sweep's folder


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    folder: Path
    state: RunState
    score: float | None  # the metric that is asked for, if there is one yet
    seconds: float | None  # that the run took, if this is known
    seed: Any
    settings: tuple[str, ...]  # the overrides that were typed for it, without the seed
    command: str  # that repeats the run


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed."""

    runs: list[Run]  # at least one, the best first
    mean: float | None  # of the scores of the runs that are done; None without any
    std: float | None  # standard deviation of the same scores, with n - 1; None for fewer than two
    settings: tuple[str, ...]  # the overrides that were typed for them, without those that all runs share

    @property
    def state(self) -> str:
        """The states of the runs: `done`, or `2 done, 1 failed`."""
        names = [run.state.name for run in self.runs]
        counts = {name: names.count(name) for name in STATES if name in names}
        if len(counts) == 1:
            return names[0]
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    @property
    def error(self) -> str:
        return next((run.state.error for run in self.runs if run.state.error), "")

    @property
    def seconds(self) -> float:
        return sum(run.seconds or 0 for run in self.runs)

    @property
    def score(self) -> str:
        """`2.4131 ± 0.0912 (3)`: mean, standard deviation, number of seeds."""
        if self.mean is None:
            return ""
        count = len({run.seed for run in self.runs if run.state.name == "done" and run.score is not None})
        return f"{self.mean:.4f}" + (f" ± {self.std:.4f} ({count})" if self.std is not None else "")


def rank_runs(folder: Path, metric: str, direction: str | None = None) -> list[Row]:
    """Every run below a folder, the best first.

    Args:
        metric: a name in metrics.json.
        direction: minimize | maximize; None: the one that is better for this metric.

    Raises:
        ValueError: for another direction.
    """
    sign = 1 if direction_of(metric, direction) == "minimize" else -1
    groups: dict[str, list[Run]] = {}
    for file in sorted(folder.glob("**/.hydra/config.yaml")):
        try:
            config = read_config(file)
            if OmegaConf.select(config, "trainer.fast_dev_run"):  # a test of the code, not a run
                continue
            content = cast(dict[Any, Any], OmegaConf.to_container(config))
            seed, key = content.get("seed"), repr(sorted(setting(content).items()))
            run = read_run(file.parent.parent, repr(seed) if isinstance(seed, list | dict) else seed, metric)
        except (OSError, ValueError) as error:  # a broken run must not cost the whole table
            log.warning("%s is left out: %s", shorten(file.parent.parent), one_line(error))
            continue
        groups.setdefault(key, []).append(run)
    common = set.intersection(*(set(run.settings) for runs in groups.values() for run in runs)) if groups else set()
    rows = [as_row(runs, sign, common) for runs in groups.values()]
    return sorted(rows, key=lambda row: place(row.mean, sign, row.runs[0].state))


def place(score: float | None, sign: int, state: RunState) -> tuple[bool, float, int]:
    """What to sort by: the best score first, then by state."""
    return score is None, sign * (score or 0), STATES.index(state.name)


def read_run(folder: Path, seed: Any, metric: str) -> Run:
    state = run_state(folder)
    typed, command = typed_overrides(folder), state.metrics.get("command")
    return Run(
        folder=folder,
        state=state,
        score=state.score(metric),
        seconds=run_seconds(folder, state),
        seed=seed,
        settings=tuple(override for override in typed if not override.startswith("seed=")),
        command=command if isinstance(command, str) else rerun_command(typed),
    )


def as_row(runs: list[Run], sign: int, common: set[str]) -> Row:
    runs = sorted(runs, key=lambda run: place(run.score, sign, run.state))
    by_seed = {run.seed: run.score for run in runs if run.state.name == "done" and run.score is not None}
    scores = list(by_seed.values())
    return Row(
        runs=runs,
        mean=statistics.fmean(scores) if scores else None,
        std=statistics.stdev(scores) if len(scores) > 1 else None,
        settings=tuple(word for word in runs[0].settings if word not in common),
    )


def check_metric(rows: list[Row], metric: str) -> None:
    """Raises ValueError if runs are done and none of them has this metric."""
    done = [run for row in rows for run in row.runs if run.state.name == "done"]
    if done and all(run.score is None for run in done):
        known = done[0].state.numbers
        near = difflib.get_close_matches(metric, known, n=1) or [key for key in known if key.endswith(f"/{metric}")]
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(known)}"
        raise ValueError(f"metric={metric}: no run has it; {hint}")
