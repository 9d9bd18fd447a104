"""Checkpoint files: write one that is never half there, read one that somebody else may have made.

A checkpoint is untrusted input. Only plain containers and tensors are read from it, and only networks of this package
are built. They are built without memory first, and get it once the file is known to hold their weights.
"""

import pickletools
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor, nn

from gan_lightning.conditioning import Conditioning
from gan_lightning.ema import EMA
from gan_lightning.files import written_whole
from gan_lightning.gan import CHECKPOINT_VERSION, GAN
from gan_lightning.runs.folder import find_checkpoint
from gan_lightning.terminal import one_line

MODELS = "gan_lightning.models."
# What the pickle in a checkpoint may name. torch's own list of safe names is longer: bytearray(10**12) is on it.
PLAIN = re.compile(
    r"collections OrderedDict|__builtin__ set|torch (Size|device|b?float\d+|u?int\d+|bool)"
    r"|torch._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)
MAX_VALUES = 1000  # in the config of a network; ours have about ten
MAX_DEPTH = 10  # of lists and dicts within each other
MAX_NUMBER = 1_000_000  # of channels, pixels, layers
MAX_TEXT = 200  # characters
SHORT = 60  # characters of a value in an error


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints that are whole or not there: a kill or a full disk during a write leaves the one before.

    Lightning's own class writes to the system's temporary folder and copies from there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        try:
            with written_whole(Path(path)) as part, part.open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(cause := error.__context__, OSError):  # torch's writer hides a full disk behind its own words
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path, key: str = "ckpt") -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. No code in it is run, and it takes no more memory than the file is long.

    Raises:
        ValueError: if it is damaged, not of this project or of a newer version, or holds more than plain data. `key` is
            what the user typed the path for.
    """
    path = Path(path)
    try:
        fault = _find_fault(path)
        checkpoint: Any = None if fault else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and their messages about pickles do not help a user
        others = [file for file in path.parent.glob("*.ckpt") if file != path and _is_whole(file)]
        newest = max(others, key=lambda file: file.stat().st_mtime, default=None)
        what = "is not a checkpoint of this project: torch.save's old format, or another kind of file"
        with path.open("rb") as file:
            if file.read(2) in (b"PK", b""):  # as torch.save begins, whole or cut short
                what = f"is damaged or not a checkpoint of this project ({type(error).__name__})"
        raise ValueError(f"{key}={path} {what}" + (f"; this one is whole: {newest}" if newest else "")) from error
    if fault:
        raise ValueError(f"{key}={path} {fault}; refused")
    about = checkpoint.get("gan_lightning") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict):
        raise ValueError(f"{key}={path} is not a checkpoint of gan_lightning")
    version = about.get("version")
    if not isinstance(version, int) or version > CHECKPOINT_VERSION:
        known = f"this version reads {CHECKPOINT_VERSION}"
        raise ValueError(f"{key}={path} has format {one_line(version, SHORT)}, {known}; update gan_lightning")
    for name, tensor in _tensors(checkpoint):
        needed, there = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        if needed > there:
            shape = f"{one_line(name, SHORT)} has the shape {tuple(tensor.shape)}"
            raise ValueError(f"{key}={path}: {shape}, which unfolds {there} bytes to {needed}; refused")
    return checkpoint


def _find_fault(path: Path) -> str | None:
    """What makes a file unsafe for torch.load, found without unpickling it; None if nothing does."""
    with ZipFile(path) as archive:
        entries = archive.infolist()
        if (size := sum(entry.file_size for entry in entries)) > path.stat().st_size:  # torch.save packs nothing
            return f"of {path.stat().st_size} bytes would unpack to {size}"
        for entry in entries:
            if entry.filename.lower().endswith(".pkl"):
                for opcode, name, _ in pickletools.genops(archive.read(entry)):
                    if opcode.name == "GLOBAL" and not PLAIN.fullmatch(str(name)):
                        return f"asks for {one_line(name, SHORT).replace(' ', '.')}, which is no plain data"
    return None


def _is_whole(file: Path) -> bool:
    try:
        return not _find_fault(file) and "gan_lightning" in torch.load(file, map_location="cpu", weights_only=True)
    except Exception:
        return False


def _tensors(content: Any) -> Iterator[tuple[Any, Tensor]]:
    """All tensors in nested containers, each with the key it stands under. They may be deep, or contain themselves."""
    stack, seen = [("", content)], set()
    while stack:
        name, value = stack.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            stack += value.items() if isinstance(value, dict) else [(name, item) for item in value]


def load_gan(path: str | Path) -> GAN:
    """Build the networks of a checkpoint or a run folder with their weights, ready for `sample`.

    No other file is needed. The weights are float32, even if the run was trained with trainer.precision=64-true.

    Raises:
        ValueError: if the file is damaged, of a newer version, or asks for anything but this package's networks.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    try:
        return _build_gan(checkpoint)
    except Exception as error:
        reason = one_line(error, 400) or type(error).__name__
        raise ValueError(f"ckpt={file} cannot be used: {reason}") from error


def _build_gan(checkpoint: dict[str, Any]) -> GAN:
    about, weights = checkpoint["gan_lightning"], checkpoint.get("state_dict")
    networks = about.get("networks")
    if not isinstance(networks, dict) or not {"generator", "discriminator"} <= networks.keys():
        raise ValueError("it does not say how to build its networks; build the GAN yourself and load its state_dict")
    if not isinstance(weights, dict):
        raise ValueError("it has no state_dict")
    for key, least in ("latent_dim", 1), ("num_classes", 0):
        if type(value := about.get(key)) is not int or not least <= value <= MAX_NUMBER:
            raise ValueError(f"{key}={one_line(value, SHORT)} must be a whole number from {least} to {MAX_NUMBER}")
    # Tensors on "meta" have a shape but no memory, and their initial values draw no random numbers.
    with torch.device("meta"):
        generator, discriminator = (build_network(networks[name]) for name in ("generator", "discriminator"))
    gan = GAN(
        generator,
        discriminator,
        conditioning=Conditioning(about["num_classes"]),
        ema=EMA() if about.get("averaged") else None,
        latent_dim=about["latent_dim"],
    ).eval()
    check_weights(gan, weights)
    _check_shapes(gan)
    # Copied: two names in a file may share memory. Assigned: what the file lacks stays "meta" and cannot go unnoticed.
    own = {
        name: torch.empty_like(tensor, device="cpu").copy_(weights[name]) for name, tensor in gan.state_dict().items()
    }
    gan.load_state_dict(own, assign=True)
    return gan


def check_weights(gan: GAN, weights: Mapping[str, Any]) -> None:
    """Raises ValueError for the first tensor of the networks that the file lacks, or has in another shape."""
    # Not the state_dict: a buffer that is not part of it could not be filled.
    wanted = dict([*gan.named_parameters(remove_duplicate=False), *gan.named_buffers(remove_duplicate=False)])
    for name, tensor in wanted.items():
        found = weights.get(name)
        if not isinstance(found, Tensor):
            raise ValueError(f"it lacks {name}, which its networks have")
        if found.shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(found.shape)} in it and {tuple(tensor.shape)} in its networks")
        if found.dtype != tensor.dtype and not (found.is_floating_point() and tensor.is_floating_point()):
            raise ValueError(f"{name} is {found.dtype} in it and {tensor.dtype} in its networks")
    if others := [name for name in weights if name not in wanted]:
        raise ValueError(f"it has {others[0]}, which its networks do not have")


@torch.no_grad()
def _check_shapes(gan: GAN) -> None:
    """Raises ValueError if two latents do not give two images, or these not two logits. Free on "meta"."""
    num_classes = gan.conditioning.num_classes
    labels = torch.empty(2, dtype=torch.int64, device="meta") if num_classes else None
    try:
        images = gan.generator(torch.empty(2, gan.latent_dim, device="meta"), labels)
    except Exception as error:
        raise ValueError(f"its generator does not take latents of latent_dim={gan.latent_dim} ({error})") from error
    if images.ndim != 4 or len(images) != 2 or not images.numel():
        raise ValueError(f"its generator turns two latents into {tuple(images.shape)}, not into two images")
    try:
        output = gan.discriminator(images, labels)
    except Exception as error:
        raise ValueError(f"its discriminator does not take images of {tuple(images.shape[1:])} ({error})") from error
    shapes = [tuple(part.shape) for part in (output if isinstance(output, tuple) else [output])]
    if shapes not in ([(2,)], [(2,), (2, num_classes)]):
        raise ValueError(f"its discriminator turns two images into {', '.join(map(str, shapes))}, not into two logits")


def build_network(config: Any) -> nn.Module:
    """A network of this package from its config; ValueError for any other `_target_`, and for a config too large.

    Hydra's instantiate is not used: it resolves `${...}` first, which reads the environment and can make new
    `_target_`s.
    """
    _check_config(config)
    network = _build(config)
    if not isinstance(network, nn.Module):
        raise ValueError("it does not say what network to build")
    return network


def _check_config(config: Any) -> None:
    """Raises ValueError for a config that could take long to build. It may contain itself."""
    stack, num_values = [(config, 0)], 0
    while stack:
        value, depth = stack.pop()
        fault = ""
        if isinstance(value, dict | list | tuple):
            num_values += len(value)
            if num_values > MAX_VALUES:
                fault = f"more than {MAX_VALUES} settings"
            elif depth >= MAX_DEPTH:
                fault = f"settings more than {MAX_DEPTH} deep"
            else:
                items = [*value, *value.values()] if isinstance(value, dict) else value
                stack += [(item, depth + 1) for item in items]
        elif isinstance(value, int) and abs(value) > MAX_NUMBER:
            fault = f"the number {one_line(value, SHORT)}, above {MAX_NUMBER}"
        elif isinstance(value, str) and len(value) > MAX_TEXT:
            fault = f"a text of more than {MAX_TEXT} characters"
        elif value is not None and not isinstance(value, int | float | str):
            fault = f"a {type(value).__name__} as a setting"
        if fault:
            raise ValueError(f"it asks for a network with {fault}; refused")


def _build(config: Any) -> Any:
    if isinstance(config, list | tuple):
        return [_build(item) for item in config]
    if not isinstance(config, dict):
        return config
    arguments = {key: _build(value) for key, value in config.items() if key != "_target_"}
    return _network_class(config["_target_"])(**arguments) if "_target_" in config else arguments


def _network_class(target: object) -> type[nn.Module]:
    # No attribute of an attribute: `gan_lightning.models.mlp.nn.Linear` has the right beginning too. The class must be
    # one of ours, not only imported by one of our modules.
    target = str(target)
    module, _, name = target.rpartition(".")
    if module.startswith(MODELS) and all(part.isidentifier() for part in target.split(".")):
        try:
            found = vars(import_module(module)).get(name)
        except ModuleNotFoundError:
            found = None
        if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(MODELS):
            return found
    raise ValueError(f"it asks for {target}, which is not a network of gan_lightning; refused")
