"""The folder of a run: find its checkpoint, read the config it was made with, keep a new run out of an old one."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gan_lightning.files import expand, python, shorten
from gan_lightning.runs.lock import LOCK, is_locked
from gan_lightning.runs.state import METRICS
from gan_lightning.runs.typed import as_argument

TRACES = (METRICS, "checkpoints/*.ckpt", "samples/epoch_*.png", "events.out.tfevents.*", "csv/**/metrics.csv")


def find_checkpoint(path: str | Path | None, runs: str | Path = "outputs", key: str = "ckpt") -> Path:
    """The checkpoint file that is meant.

    Args:
        path: a checkpoint, a run folder, or None for the newest run below `runs`.
        key: the key that the user typed the path for, for the error.

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
    """The keys and values of a file in `.hydra/`.

    Raises:
        ValueError: if the file holds anything else.
    """
    content = _load_yaml(file)
    if not isinstance(content, DictConfig):
        raise ValueError(f"{shorten(file)} is not the config of a run: it holds a list")
    return content


def _load_yaml(file: Path) -> DictConfig | ListConfig:
    try:
        return OmegaConf.load(file)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        if (
            isinstance(error, OSError) and error.errno
        ):  # of the disk; OmegaConf raises one without for a number or a word
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
    words: Any = _load_yaml(file) if file.is_file() else []
    if isinstance(words, DictConfig) and not words:  # an empty file
        return []
    if isinstance(words, DictConfig) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{shorten(file)} is not the list of what was typed for a run")
    return list(words)


def check_new(folder: Path, key: str = "hydra.run.dir", value: str | None = None) -> None:
    """Make sure that a new run does not write into the folder of an earlier one.

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
