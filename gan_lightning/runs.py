"""Runs on disk: which checkpoint is meant, which folder it belongs to, what config it was made with."""

from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf


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
                f"ckpt is not set and there is no run in {runs}/; train one first: python -m gan_lightning"
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
