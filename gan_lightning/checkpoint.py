"""File -> GAN, safely. A checkpoint is untrusted input: only the networks of this package are ever built from it."""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from gan_lightning.ema import EMA
from gan_lightning.gan import CHECKPOINT_VERSION, GAN

log = logging.getLogger(__name__)

MODELS = "gan_lightning.models."


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


def run_config(checkpoint: Path) -> DictConfig:
    """The config of the run that wrote a checkpoint, from its folder.

    Raises:
        ValueError: if the checkpoint is not in a run folder.
    """
    file = checkpoint.parent.parent / ".hydra" / "config.yaml"
    if not file.is_file():
        raise ValueError(f"ckpt={checkpoint} is not in a run folder, so its data set is not known; add data=<name>")
    return cast(DictConfig, OmegaConf.load(file))


def load_gan(path: str | Path) -> GAN:
    """Build the networks of a checkpoint with their weights, ready for `sample`; no other file is needed.

    Args:
        path: a checkpoint or a run folder.

    Raises:
        ValueError: if the file is damaged, of a newer version, or asks for anything but this package's networks.
    """
    file = find_checkpoint(path)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; what they say of pickles does not help here
        raise ValueError(
            f"ckpt={file} is damaged or not a checkpoint of this project ({type(error).__name__})"
        ) from error
    if not isinstance(checkpoint, dict) or "gan_lightning" not in checkpoint:
        raise ValueError(f"ckpt={file} is not a checkpoint of gan_lightning")
    about = checkpoint["gan_lightning"]
    if about["version"] > CHECKPOINT_VERSION:
        raise ValueError(
            f"ckpt={file} has format {about['version']}, this version reads {CHECKPOINT_VERSION}; update gan_lightning"
        )
    if about["networks"] is None:
        raise ValueError(
            f"ckpt={file} says not how to build its networks; build the GAN yourself and load its state_dict"
        )
    gan = GAN(
        generator=build_network(about["networks"]["generator"]),
        discriminator=build_network(about["networks"]["discriminator"]),
        latent_dim=about["latent_dim"],
        ema=EMA() if about["averaged"] else None,
    )
    gan.load_state_dict(checkpoint["state_dict"])
    return gan.eval()


def build_network(config: dict[str, Any]) -> nn.Module:
    """A network of this package from its config.

    Raises:
        ValueError: if `_target_`, here or further down, is anything but a network defined in `gan_lightning.models`.
    """
    check_targets(config)
    return instantiate(config)


def check_targets(config: Any) -> None:
    # What the name resolves to counts: `gan_lightning.models.mlp.nn.Linear` begins well too.
    if isinstance(config, dict):
        target = config.get("_target_")
        if target is not None:
            network = get_class(target) if str(target).startswith(MODELS) else None
            if network is None or not issubclass(network, nn.Module) or not network.__module__.startswith(MODELS):
                raise ValueError(f"the checkpoint asks for {target}, which is not a network of gan_lightning; refused")
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            check_targets(item)
