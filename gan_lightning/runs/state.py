"""The state of a run, from the files in its folder: is it done, stopped, killed, or running, as its lock says?"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gan_lightning.files import shorten

METRICS, ERROR, LOCK = "metrics.json", "error.txt", ".lock"  # files in a run's folder
STATES = ("done", "pruned", "running", "stopped", "killed", "failed", "waiting")  # in the order of a table


@dataclass(frozen=True)
class RunState:
    name: str  # done | pruned | stopped (its checkpoint can be resumed) | failed | running | killed | waiting
    error: str  # why a run failed, in one line; otherwise empty
    metrics: dict[str, Any]  # the content of metrics.json, empty without one

    @property
    def is_final(self) -> bool:
        return self.name in ("done", "pruned")

    @property
    def numbers(self) -> list[str]:
        """The names of all numbers in metrics.json."""
        return sorted(name for name in self.metrics if self.score(name) is not None)

    def score(self, metric: str) -> float | None:
        """A number of metrics.json; None if it is not there, NaN or infinite."""
        value = self.metrics.get(metric)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return value if abs(value) <= sys.float_info.max else None


def run_state(run: Path) -> RunState:
    """The state of a run from the files in its folder; the newer of metrics.json and error.txt counts.

    A run whose metrics.json is not as a run writes it counts as failed.
    """
    metrics_file, error_file = run / METRICS, run / ERROR
    metrics, fault = _read_metrics(metrics_file) if metrics_file.exists() else ({}, "")
    if is_locked(run / LOCK):
        return RunState("running", "", metrics)
    if error_file.exists() and not (metrics and metrics_file.stat().st_mtime > error_file.stat().st_mtime):
        return RunState("failed", error_file.read_text(encoding="utf-8", errors="replace").strip(), metrics)
    if fault:
        return RunState("failed", fault, metrics)
    if not metrics:
        return RunState("killed" if (run / "train.log").exists() else "waiting", "", metrics)
    state = metrics.get("state", "done")
    is_gone = state == "running"  # or it would hold the lock
    return RunState("killed" if is_gone else state, "", metrics)


def _read_metrics(file: Path) -> tuple[dict[str, Any], str]:
    """The content of metrics.json, and what is wrong with it."""
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}, f"{METRICS} is not JSON"
    if not isinstance(metrics, dict):
        return {}, f"{METRICS} is not the record of a run: it holds no keys"
    if metrics.get("state", "done") not in STATES:
        return metrics, f"{METRICS} is not the record of a run: its state is none of {', '.join(STATES)}"
    return metrics, ""


def run_seconds(run: Path, state: RunState) -> float | None:
    """The seconds that a run took; without metrics.json, up to its last line of train.log."""
    if (seconds := state.score("seconds")) is not None:
        return float(seconds)
    begun, told = run / ".hydra" / "overrides.yaml", run / "train.log"
    if not (begun.exists() and told.exists()):
        return None
    return max(0.0, told.stat().st_mtime - begun.stat().st_mtime)


@contextmanager
def alone_in(folder: Path, key: str = "hydra.run.dir") -> Iterator[None]:
    """Lock a folder for one training or one sweep: two would overwrite each other's files.

    Args:
        key: of the config, which sets the folder.

    Raises:
        ValueError: if another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1)  # `is_locked` holds it for a moment
    except Timeout:
        raise ValueError(f"{key}={shorten(folder)}: another process is at work there; wait, or stop it") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove a file that is open
            (folder / LOCK).unlink(missing_ok=True)  # before another can have it
        lock.release()


def is_locked(file: Path) -> bool:
    """Does a running process hold this lock? A file that a killed process has left does not count."""
    if not file.exists():
        return False
    try:
        with FileLock(file).acquire(timeout=0.1, poll_interval=0.02):  # longer than another `is_locked` holds it
            return False
    except Timeout:
        return True
    except OSError:  # of another user, whose file may be read but not locked
        return file.exists()
