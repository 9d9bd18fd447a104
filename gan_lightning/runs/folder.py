"""The folder of a run: its name, its checkpoint, the config it was made with; what was typed for this process's run."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gan_lightning.files import expand, python, shorten
from gan_lightning.runs.state import LOCK, METRICS, is_locked
from gan_lightning.runs.typed import as_argument

TRACES = (METRICS, "checkpoints/*.ckpt", "samples/epoch_*.png", "events.out.tfevents.*", "csv/**/metrics.csv")


# --- A new run ---------------------------------------------------------------------------------------------


def run_name(rank: int) -> str:
    """`${run_name:}` in conf/: the last part of a run's folder, its time; under srun the number of the job.

    Under torchrun the first process's time counts for all, and comes through the store that torchrun keeps.
    """
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from torch.distributed import TCPStore

        key = f"gan_lightning/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=timedelta(minutes=5))
        if rank == 0:
            store.set(key, now)
        return store.get(key).decode()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")  # a job queued again counts its steps from 0 again
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ['SLURM_STEP_ID']}_{restarts}"
    return now


def check_new(folder: Path, key: str = "hydra.run.dir", value: str | None = None) -> None:
    """Make sure that a new run does not write into the folder of another one.

    The folder may hold what a run leaves that failed before its first iteration.

    Args:
        key: of the config, which sets the folder.
        value: as it was typed; None: the folder itself.

    Raises:
        ValueError: if the folder holds a run.
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


# --- The run of this process -------------------------------------------------------------------------------


def saved_folder() -> Path | None:
    """The run's folder, where its config comes from there: it is resumed, or a job of a sweep. None: composed anew."""
    hydra = HydraConfig.get()
    return Path(hydra.runtime.output_dir) if hydra.output_subdir is None else None


def choices() -> dict[str, str]:
    """The option taken from each config group, `{"model": "mlp", ...}`."""
    folder = saved_folder()
    return (chosen_options(folder) if folder else {}) or dict(HydraConfig.get().runtime.choices)


def overrides() -> list[str]:
    """What was typed when the run was started, and when it was resumed."""
    typed = list(HydraConfig.get().overrides.task)
    if folder := saved_folder():
        typed = [word for word in typed if not word.startswith(("hydra", "resume=", "++resume="))]
        typed = typed_overrides(folder) + typed
    return typed


# --- A run on disk -----------------------------------------------------------------------------------------


def find_checkpoint(path: str | Path | None, runs: str | Path = "outputs", key: str = "ckpt") -> Path:
    """The checkpoint file that is meant.

    Args:
        path: a checkpoint, a run folder, or None for the newest run below `runs`.
        key: the key that the user typed the path for, for the error.

    Raises:
        ValueError: if there is none.
    """
    if path is None:
        found = Path(runs).glob("**/checkpoints/last.ckpt")
        if newest := max(found, key=lambda file: file.stat().st_mtime, default=None):
            return newest
        raise ValueError(
            f"ckpt is not set and there is no run in {runs}/; train one first: {python()} -m gan_lightning"
        )
    if not str(path):
        raise ValueError(f"{key}= is empty; name a checkpoint or a run folder, or leave it out")
    typed, path = path, expand(path, key)
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{key}={typed}: there is no file {file}; name a checkpoint or a run folder that has one")
    return file


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that wrote a checkpoint; for a checkpoint copied elsewhere, the folder it lies in."""
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
        raise ValueError(f"{shorten(file)} is not the config of a run: it lacks seed, which every run has")
    return config


def read_config(file: Path) -> DictConfig:
    """The keys and values of a file in `.hydra/`. Raises ValueError if the file holds anything else."""
    content = _load_yaml(file)
    if not isinstance(content, DictConfig):
        raise ValueError(f"{shorten(file)} is not the config of a run: it holds a list")
    return content


def _load_yaml(file: Path) -> Any:
    try:
        return OmegaConf.load(file)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk; OmegaConf's own, for a number, has none
            raise
        raise ValueError(f"{shorten(file)} cannot be read: it is not YAML as a run writes it") from error


def chosen_options(run: Path) -> dict[str, str]:
    """The option that a run took from each config group, `{"model": "mlp", ...}`; empty if it is not recorded."""
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
    words = _load_yaml(file) if file.is_file() else []
    if not words:
        return []
    if isinstance(words, DictConfig) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{shorten(file)} is not the list of what was typed for a run")
    return list(words)
