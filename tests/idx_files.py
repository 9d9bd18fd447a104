"""A small data set in real IDX files, for tests that need data and no network."""

import hashlib
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from gan_lightning.data.idx import FILES


def write(folder: Path, train: int = 512, test: int = 640, size: int = 28) -> list[str]:
    """Write the four files; return the Hydra overrides that point `data` to them.

    Learnable: each of the ten classes is one blurred pattern, each image that pattern with noise.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = (torch.rand(10, 1, 7, 7, generator=generator) > 0.6).float()
    patterns = interpolate(coarse, size=(size, size), mode="bilinear")[:, 0]  # (10, H, W)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in ("train", train), ("test", test):
        labels = torch.arange(count) % 10
        noise = 0.1 * torch.randn(count, size, size, generator=generator)
        images = (patterns[labels] + noise).clamp(0, 1).mul(255).to(torch.uint8)
        (folder / FILES[f"{split}_images"]).write_bytes(encode(images))
        (folder / FILES[f"{split}_labels"]).write_bytes(encode(labels.to(torch.uint8)))
    digests = [f"data.reader.sha256.{name}='{digest}'" for name, digest in sha256(folder).items()]
    return [f"data.root={folder}", *digests]


def sha256(folder: Path) -> dict[str, str]:
    """Of the files in a folder, as IdxReader takes them."""
    return {name: hashlib.sha256((folder / file).read_bytes()).hexdigest() for name, file in FILES.items()}


def encode(tensor: torch.Tensor) -> bytes:
    """A uint8 tensor in the IDX format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in tensor.shape)
    return bytes([0, 0, 8, tensor.ndim]) + sizes + tensor.numpy().tobytes()
