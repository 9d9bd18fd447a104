"""GAN -> file, whole or not at all; file -> GAN, safely.

A checkpoint is untrusted input: it is plain containers and tensors, and only the networks of this package are ever
built from it.
"""

import os
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from lightning.fabric.plugins import CheckpointIO
from torch import nn

from gan_lightning.ema import EMA
from gan_lightning.gan import CHECKPOINT_VERSION, GAN
from gan_lightning.runs import find_checkpoint, other_checkpoints

MODELS = "gan_lightning.models."


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints that are whole or not there: a kill or a full disk while one is written leaves the one before.

    Lightning's own writes to the system's temporary folder and copies from there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())  # else a crash of the machine may leave the new name on an empty file
            os.replace(part, path)
        except RuntimeError as error:
            if isinstance(cause := error.__context__, OSError):  # torch's writer hides a full disk behind its own words
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; no code in it is run.

    Raises:
        ValueError: if it is damaged, not of this project or of a newer version.
    """
    path = Path(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; what they say of pickles does not help here
        whole = [file for file in other_checkpoints(path) if _is_whole(file)]
        offer = f"; whole is {whole[0]}" if whole else ""
        raise ValueError(
            f"ckpt={path} is damaged or not a checkpoint of this project ({type(error).__name__}){offer}"
        ) from error
    if not isinstance(checkpoint, dict) or "gan_lightning" not in checkpoint:
        raise ValueError(f"ckpt={path} is not a checkpoint of gan_lightning")
    version = checkpoint["gan_lightning"].get("version")
    if not isinstance(version, int) or version > CHECKPOINT_VERSION:
        raise ValueError(
            f"ckpt={path} has format {version}, this version reads {CHECKPOINT_VERSION}; update gan_lightning"
        )
    return checkpoint


def _is_whole(file: Path) -> bool:
    try:
        return "gan_lightning" in torch.load(file, map_location="meta", weights_only=True)
    except Exception:
        return False


def load_gan(path: str | Path) -> GAN:
    """Build the networks of a checkpoint with their weights, ready for `sample`; no other file is needed.

    Args:
        path: a checkpoint or a run folder.

    Raises:
        ValueError: if the file is damaged, of a newer version, or asks for anything but this package's networks.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    try:
        return _build_gan(checkpoint).eval()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"ckpt={file} cannot be used: {reason}") from error


def _build_gan(checkpoint: dict[str, Any]) -> GAN:
    about = checkpoint["gan_lightning"]
    if about["networks"] is None:
        raise ValueError("it says not how to build its networks; build the GAN yourself and load its state_dict")
    gan = GAN(
        generator=build_network(about["networks"]["generator"]),
        discriminator=build_network(about["networks"]["discriminator"]),
        latent_dim=about["latent_dim"],
        ema=EMA() if about["averaged"] else None,
    )
    gan.load_state_dict(checkpoint["state_dict"])
    return gan


def build_network(config: Any) -> nn.Module:
    """A network of this package from its config.

    Not Hydra's instantiate: it resolves `${...}` first, which reads the environment, and makes new `_target_`s.

    Raises:
        ValueError: if `_target_`, here or further down, is anything but a network defined in `gan_lightning.models`.
    """
    network = _build(config)
    if not isinstance(network, nn.Module):
        raise ValueError("it does not say what network to build")
    return network


def _build(config: Any) -> Any:
    if isinstance(config, list | tuple):
        return [_build(item) for item in config]
    if not isinstance(config, dict):
        return config
    arguments = {key: _build(value) for key, value in config.items() if key != "_target_"}
    return _network_class(config["_target_"])(**arguments) if "_target_" in config else arguments


def _network_class(target: Any) -> type[nn.Module]:
    # What the name resolves to counts: `gan_lightning.models.mlp.nn.Linear` begins well too.
    found = get_class(target) if isinstance(target, str) and target.startswith(MODELS) else None
    if found is None or not issubclass(found, nn.Module) or not found.__module__.startswith(MODELS):
        raise ValueError(f"it asks for {target}, which is not a network of gan_lightning; refused")
    return found
