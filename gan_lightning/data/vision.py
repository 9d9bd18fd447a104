"""The data sets for classification that torchvision has. https://docs.pytorch.org/vision/stable/datasets.html"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_lightning.data import fetch
from gan_lightning.data.fetch import Files
from gan_lightning.data.fitting import check_channels, fit


class VisionReader:
    """Reads a data set with torchvision's own class, from files with the right checksums; fetches missing ones.

    Checksums are compared before any file is opened: some files are pickles, which can run code.

    Args:
        dataset: torchvision's class, called with `root` and the arguments in `train` or `test`.
        image_shape: C, H, W; other pictures are cropped and resized.
        checksums: SHA-256 or MD5 of each file that the class reads, by its path below `root`.
        urls: of these files, or of tar archives that hold them. An archive may also lie in `root`.
        train, test: arguments of the class for that split.

    Raises:
        ValueError: if image_shape has neither 1 nor 3 channels.
    """

    def __init__(
        self,
        dataset: Callable[..., Any],
        image_shape: Sequence[int],
        checksums: Mapping[str, str],
        urls: Sequence[str],
        train: Mapping[str, Any],
        test: Mapping[str, Any],
    ) -> None:
        check_channels(image_shape)
        self.dataset = dataset
        self.image_shape = tuple(image_shape)  # not a list of the config, which is slow to read for every picture
        self.checksums = checksums
        self.urls = urls
        self.splits = {"train": train, "test": test}
        self.checked: Path | None = None  # folder whose checksums have been compared

    def fetch(self, root: Path) -> None:
        """Put missing files into `root`. If all are there, neither disk nor network is touched."""
        archives = [root / url.rpartition("/")[2] for url in self.urls if url.endswith(fetch.ARCHIVES)]
        sources: dict[str, fetch.Source] = {str(path): partial(fetch.from_archive, path) for path in archives}
        sources |= {url: partial(fetch.from_url, url) for url in self.urls}
        self._files(root).fetch(sources)
        self.checked = root

    def read(self, root: Path, split: str) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) uint8 and labels (N,) int64 of "train" or "test".

        Raises:
            ValueError: if a file is missing or is not the one that was published, or torchvision refuses to read them.
        """
        if self.checked != root:
            for name in self.checksums:
                self._files(root).read(name)
            self.checked = root
        try:
            pictures = self.dataset(str(root), **self.splits[split])
        except (RuntimeError, OSError) as error:
            raise ValueError(f"data.root={root}: torchvision cannot read the {split} split: {error}") from error
        channels, height, width = self.image_shape
        array = getattr(pictures, "data", None)  # CIFAR's classes have all images in one array
        if isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape[1:] == (height, width, channels):
            return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(), torch.tensor(pictures.targets)
        images = torch.empty(len(pictures), *self.image_shape, dtype=torch.uint8)
        labels = torch.empty(len(pictures), dtype=torch.int64)
        for number in range(len(pictures)):
            picture, label = pictures[number]
            images[number], labels[number] = fit(picture, self.image_shape), int(label)
        return images, labels

    def _files(self, root: Path) -> Files:
        return Files([root], self.checksums, unzip=False)
