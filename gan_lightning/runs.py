"""Runs on disk: which checkpoint is meant, what config it was made with, what has become of it."""

import json
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from gan_lightning.paths import python, shorten

METRICS, ERROR, LOCK = "metrics.json", "error.txt", ".lock"  # files in a run's folder
AT_END = "the run is at its end"


def find_checkpoint(path: str | Path | None, runs: str | Path = "outputs", key: str = "ckpt") -> Path:
    """The checkpoint file that is meant.

    Args:
        path: a checkpoint, a run folder, or None for the newest run below `runs`.
        key: what the user typed it as, for the error.

    Raises:
        ValueError: if there is none.
    """
    if path is None:
        found = sorted(Path(runs).glob("**/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise ValueError(
                f"ckpt is not set and there is no run in {runs}/; train one first: {python()} -m gan_lightning"
            )
        return found[-1]
    path = Path(path).expanduser()
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{key}={path}: there is no file {file}; name a checkpoint or a run folder that has one")
    return file


def other_checkpoints(path: Path) -> list[Path]:
    """The checkpoints beside one, the newest first."""
    files = [file for file in path.parent.glob("*.ckpt") if file != path]
    return sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that wrote a checkpoint; of one that somebody has copied elsewhere, where it lies."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def run_config(checkpoint: Path, key: str = "ckpt") -> DictConfig:
    """The config of the run that wrote a checkpoint, from its folder.

    Raises:
        ValueError: if the checkpoint is not in a run folder.
    """
    file = run_folder(checkpoint) / ".hydra" / "config.yaml"
    if not file.is_file():
        way_out = "; add data=<name>" if key == "ckpt" else "; name a run folder, or a checkpoint in its checkpoints/"
        raise ValueError(f"{key}={checkpoint} is not in a run folder, so its config is not known{way_out}")
    return cast(DictConfig, OmegaConf.load(file))


def chosen_options(run: Path) -> dict[str, str]:
    """The option that a run took from each config group, `{"model": "mlp", ...}`; empty without a record of it."""
    file = run / ".hydra" / "hydra.yaml"
    if not file.is_file():
        return {}
    return dict(OmegaConf.load(file).hydra.runtime.choices)


def typed_overrides(run: Path) -> list[str]:
    """What the user typed when the run was started."""
    file = run / ".hydra" / "overrides.yaml"
    return list(OmegaConf.load(file)) if file.is_file() else []


@dataclass(frozen=True)
class RunState:
    """What has become of a run.

    Args:
        name: done | pruned | stopped (its checkpoint can be resumed) | failed | running | killed | waiting.
        error: what went wrong, in one line; empty for all but failed.
        metrics: of metrics.json, empty where there is none.
    """

    name: str
    error: str
    metrics: dict[str, Any]

    @property
    def is_final(self) -> bool:
        return self.name in ("done", "pruned")

    @property
    def numbers(self) -> list[str]:
        """What metrics.json has a score of."""
        return sorted(name for name in self.metrics if self.score(name) is not None)

    def score(self, metric: str) -> float | None:
        """A number of metrics.json; None where there is none, or it is NaN or infinite."""
        value = self.metrics.get(metric)
        return value if isinstance(value, int | float) and math.isfinite(value) else None


def run_state(run: Path) -> RunState:
    """What the files in a run's folder say; the newer of metrics.json and error.txt counts."""
    metrics_file, error_file = run / METRICS, run / ERROR
    metrics: dict[str, Any] = json.loads(metrics_file.read_text()) if metrics_file.exists() else {}
    if is_locked(run / LOCK):
        return RunState("running", "", metrics)
    if error_file.exists() and not (metrics and metrics_file.stat().st_mtime > error_file.stat().st_mtime):
        return RunState("failed", error_file.read_text(encoding="utf-8").strip(), metrics)
    if metrics:
        return RunState(metrics.get("state", "done"), "", metrics)
    return RunState("killed" if (run / "train.log").exists() else "waiting", "", metrics)


def run_seconds(run: Path, state: RunState) -> float | None:
    """The seconds that a run took; of one that ended without metrics.json, until its last sign of life."""
    if "seconds" in state.metrics:
        return float(state.metrics["seconds"])
    begun, told = run / ".hydra" / "overrides.yaml", run / "train.log"
    if not (begun.exists() and told.exists()):
        return None
    return max(0.0, told.stat().st_mtime - begun.stat().st_mtime)


def rerun_command(overrides: Sequence[str]) -> str:
    """What to type to have the run of these overrides again."""
    # Sums over another number of threads are rounded otherwise.
    threads = os.environ.get("OMP_NUM_THREADS")
    prefix = f"OMP_NUM_THREADS={threads} " if threads else ""
    return prefix + shlex.join(["python", "-m", "gan_lightning", *overrides])


@contextmanager
def alone_in(folder: Path, key: str = "hydra.run.dir") -> Iterator[None]:
    """Two trainings, or two sweeps, in one folder would tear each other's files apart.

    Args:
        key: what sets the folder, for the error.

    Raises:
        ValueError: if another one is at work there.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1)  # `is_locked` has a part in it for a moment
    except Timeout:
        raise ValueError(f"{key}={shorten(folder)}: another process is at work there; wait, or stop it") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # before another can have it
        lock.release()


def is_locked(file: Path) -> bool:
    """Does a training hold the lock of its folder? A file that a killed one has left does not count."""
    import fcntl

    try:
        with file.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask do not take each other for one
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def quote(path: str | Path) -> str:
    """For Hydra's grammar, which knows blanks, commas and the like as signs of its own."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(str(path), Quote.single).with_quotes()
