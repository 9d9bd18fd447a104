"""Runs on disk: which checkpoint is meant, which folder it belongs to, what config it was made with."""

from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf


def find_checkpoint(path: str | Path | None, runs: str | Path = "outputs") -> Path:
    """The checkpoint file that is meant.

    Args:
        path: a checkpoint, a run folder, or None for the newest run below `runs`.

    Raises:
        ValueError: if there is none.
    """
    if path is None:
        found = sorted(Path(runs).glob("**/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise ValueError(
                f"ckpt is not set and there is no run in {runs}/; train one first: python -m gan_lightning"
            )
        return found[-1]
    path = Path(path).expanduser()
    file = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"ckpt={path}: there is no file {file}; name a checkpoint or a run folder that has one")
    return file


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that wrote a checkpoint; of one that somebody has copied elsewhere, where it lies."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def run_config(checkpoint: Path) -> DictConfig:
    """The config of the run that wrote a checkpoint, from its folder.

    Raises:
        ValueError: if the checkpoint is not in a run folder.
    """
    file = run_folder(checkpoint) / ".hydra" / "config.yaml"
    if not file.is_file():
        raise ValueError(f"ckpt={checkpoint} is not in a run folder, so its data set is not known; add data=<name>")
    return cast(DictConfig, OmegaConf.load(file))
