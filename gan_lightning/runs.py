"""Runs on disk: which checkpoint is meant, what config it was made with, what has become of it."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gan_lightning.names import as_argument, as_typed
from gan_lightning.paths import expand, python, shorten

METRICS, ERROR, LOCK = "metrics.json", "error.txt", ".lock"  # files in a run's folder
AT_END = "the run is at its end"
TRACES = (METRICS, "checkpoints/*.ckpt", "samples/epoch_*.png", "events.out.tfevents.*", "csv/**/metrics.csv")
STATES = ("done", "pruned", "running", "stopped", "killed", "failed", "waiting")  # in the order of a table


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
    if not str(path):
        raise ValueError(f"{key}= is empty; name a checkpoint or a run folder, or leave it out")
    typed, path = path, expand(path, key)
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{key}={typed}: there is no file {file}; name a checkpoint or a run folder that has one")
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
        ValueError: if the checkpoint is not in a run folder, or its config is broken.
    """
    file = run_folder(checkpoint) / ".hydra" / "config.yaml"
    if not file.is_file():
        way_out = "; add data=<name>" if key == "ckpt" else "; name a run folder, or a checkpoint in its checkpoints/"
        raise ValueError(f"{key}={checkpoint} is not in a run folder, so its config is not known{way_out}")
    config = read_config(file)
    if "seed" not in config:
        raise ValueError(f"{shorten(file)} is no config of a run: it lacks seed, which every run has")
    return config


def read_config(file: Path) -> DictConfig:
    """Keys and values from one of the files in `.hydra/`.

    Raises:
        ValueError: if it holds anything else; the message names the file.
    """
    content = _load_yaml(file)
    if not isinstance(content, DictConfig):
        raise ValueError(f"{shorten(file)} is no config of a run: it holds a list")
    return content


def _load_yaml(file: Path) -> DictConfig | ListConfig:
    try:
        return OmegaConf.load(file)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk; OmegaConf raises others for a number or a word
            raise
        raise ValueError(f"{shorten(file)} cannot be read: it is no YAML that a run has written") from error


def chosen_options(run: Path) -> dict[str, str]:
    """The option that a run took from each config group, `{"model": "mlp", ...}`; empty without a record of it."""
    file = run / ".hydra" / "hydra.yaml"
    if not file.is_file():
        return {}
    choices = OmegaConf.select(read_config(file), "hydra.runtime.choices")
    if not isinstance(choices, DictConfig):
        raise ValueError(f"{shorten(file)} does not say which options the run took: it lacks hydra.runtime.choices")
    return dict(choices)


def typed_overrides(run: Path) -> list[str]:
    """What the user typed when the run was started."""
    file = run / ".hydra" / "overrides.yaml"
    words: Any = _load_yaml(file) if file.is_file() else []
    if isinstance(words, DictConfig) and not words:  # an empty file
        return []
    if isinstance(words, DictConfig) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{shorten(file)} is not the list of settings that were typed for a run")
    return list(words)


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
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return value if abs(value) <= sys.float_info.max else None


def run_state(run: Path) -> RunState:
    """What the files in a run's folder say; the newer of metrics.json and error.txt counts.

    A metrics.json that no run has written is the error of a failed run.
    """
    metrics_file, error_file = run / METRICS, run / ERROR
    metrics, fault = _read_metrics(metrics_file) if metrics_file.exists() else ({}, "")
    if is_locked(run / LOCK):
        return RunState("running", "", metrics)
    if error_file.exists() and not (metrics and metrics_file.stat().st_mtime > error_file.stat().st_mtime):
        return RunState("failed", error_file.read_text(encoding="utf-8", errors="replace").strip(), metrics)
    if fault:
        return RunState("failed", fault, metrics)
    if metrics:
        state = metrics.get("state", "done")
        return RunState("killed" if state == "running" else state, "", metrics)  # it has let go of its lock
    return RunState("killed" if (run / "train.log").exists() else "waiting", "", metrics)


def _read_metrics(file: Path) -> tuple[dict[str, Any], str]:
    """What metrics.json holds, and what is wrong with it."""
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}, f"{METRICS} is no JSON"
    if not isinstance(metrics, dict):
        return {}, f"{METRICS} is no record of a run: it holds no keys"
    if metrics.get("state", "done") not in STATES:
        return metrics, f"{METRICS} is no record of a run: its state is none of {', '.join(STATES)}"
    return metrics, ""


def run_seconds(run: Path, state: RunState) -> float | None:
    """The seconds that a run took; of one that ended without metrics.json, until its last sign of life."""
    if (seconds := state.score("seconds")) is not None:
        return float(seconds)
    begun, told = run / ".hydra" / "overrides.yaml", run / "train.log"
    if not (begun.exists() and told.exists()):
        return None
    return max(0.0, told.stat().st_mtime - begun.stat().st_mtime)


def rerun_command(overrides: Sequence[str]) -> str:
    """What to type to have the run of these overrides again."""
    # Sums over another number of threads are rounded otherwise.
    threads = os.environ.get("OMP_NUM_THREADS")
    prefix = f"OMP_NUM_THREADS={threads} " if threads else ""
    return prefix + shlex.join(["python", "-m", "gan_lightning", *map(as_typed, overrides)])


def check_new(folder: Path, key: str = "hydra.run.dir", value: str | None = None) -> None:
    """See to it that a new run does not write into an earlier one.

    What a run leaves that has failed before its first iteration is no harm.

    Args:
        key, value: what sets the folder, for the error.

    Raises:
        ValueError: if a folder holds a run, with the way out.
    """
    place = f"{key}={value or shorten(folder)}"
    other = f"another {'folder' if value is None else key}"
    if is_locked(folder / LOCK):
        raise ValueError(f"{place}: another process is at work there; choose {other}")
    if any(file for pattern in TRACES for file in folder.glob(pattern)):
        is_resumable = (folder / "checkpoints" / "last.ckpt").is_file()
        further = f"go on with it: resume={as_argument(shorten(folder))}; or " if is_resumable else ""
        holds = f"{place} holds a run already" if value is None else f"{place}: {shorten(folder)} holds a run already"
        raise ValueError(f"{holds}; {further}choose {other} for a new one")


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
        with suppress(OSError):  # on Windows it goes at the release
            (folder / LOCK).unlink(missing_ok=True)  # before another can have it
        lock.release()


def is_locked(file: Path) -> bool:
    """Does a training hold the lock of its folder? A file that a killed one has left does not count."""
    from filelock import FileLock, Timeout

    if not file.exists():
        return False
    try:
        with FileLock(file).acquire(timeout=0.1, poll_interval=0.02):  # two who ask do not take each other for one
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's, which may be looked at and not touched
        return file.exists()
