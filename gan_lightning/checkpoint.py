"""File -> GAN, safely. A checkpoint is untrusted input: only the networks of this package are ever built from it."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from torch import nn

from gan_lightning.ema import EMA
from gan_lightning.gan import CHECKPOINT_VERSION, GAN
from gan_lightning.runs import find_checkpoint

MODELS = "gan_lightning.models."


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
    try:
        return _build_gan(checkpoint).eval()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"ckpt={file} cannot be used: {reason}") from error


def _build_gan(checkpoint: dict[str, Any]) -> GAN:
    about = checkpoint["gan_lightning"]
    if about["version"] > CHECKPOINT_VERSION:
        raise ValueError(
            f"it has format {about['version']}, this version reads {CHECKPOINT_VERSION}; update gan_lightning"
        )
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
