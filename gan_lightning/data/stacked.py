"""Stacked images: each channel is an image of a smaller set. Metz et al. 2017. https://arxiv.org/abs/1611.02163

Shapes: N images of the smaller set, K their classes, S stacks, C channels, H height, W width.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.data.module import Batch, BatchLoader, ImageDataModule, Reader
from gan_lightning.noise import derive_seed


class StackedDataModule(ImageDataModule):
    """C grey images, drawn independently, are the channels of one: K^C classes, of MNIST's digits 1000.

    An epoch shows each image once in every channel, in an order that follows from (seed, epoch). `images(split)` are
    fixed stacks: N in the train split, with each image once in every channel, and `num_test` in the test split.

    Args:
        reader: of the smaller set, with images (N, 1, H, W).
        image_shape: C, H, W of the stacks.
        num_classes: K^C.
        num_test: S, stacks of the test split, drawn from its images with replacement.
        root, batch_size, replacement, seed, num_val_samples, name: as of ImageDataModule.

    Raises:
        ValueError: if C is 1, or num_classes is not the C-th power of any number.
    """

    def __init__(
        self,
        root: str | Path,
        reader: Reader,
        image_shape: tuple[int, int, int],
        num_classes: int,
        num_test: int,
        batch_size: int = 128,
        replacement: bool = False,
        seed: int = 0,
        num_val_samples: int = 0,
        name: str = "images",
    ) -> None:
        super().__init__(root, reader, image_shape, batch_size, replacement, seed, num_val_samples, name, num_classes)
        self.num_test = num_test
        num_channels = self.image_shape[0]
        if num_channels < 2:
            raise ValueError(f"image_shape={list(self.image_shape)}: a stack has two channels or more; try data=mnist")
        self.num_small = round(self.num_classes ** (1 / num_channels))  # K
        if self.num_small**num_channels != self.num_classes or not self.num_classes:
            raise ValueError(
                f"num_classes={self.num_classes} must be the classes of one image to the power of {num_channels}, the "
                f"channels in image_shape={list(self.image_shape)}; try {10**num_channels}"
            )
        self._small: dict[str, Batch] = {}

    def train_dataloader(self) -> BatchLoader:
        self._split("train")  # refuses what does not fit together
        kind = partial(StackLoader, num_channels=self.image_shape[0], num_classes=self.num_small)
        return self._loader(kind, *self._read_small("train"))

    def _read(self, split: str) -> Batch:
        images, labels = self._read_small(split)
        num_channels = self.image_shape[0]
        if split == "train":
            rows = permutations(len(images), num_channels, 0)
        else:
            generator = torch.Generator().manual_seed(0)
            rows = torch.randint(len(images), (self.num_test, num_channels), generator=generator)
        return stack(images, labels, rows, self.num_small)

    def _read_small(self, split: str) -> Batch:
        if split not in self._small:
            self._small[split] = self.reader.read(self.root, split)
        return self._small[split]


class StackLoader(BatchLoader):
    """Batches of stacks, with a different order of the images in each channel.

    Args:
        num_channels: C.  num_classes: K.
        settings: those of BatchLoader, with the smaller set's images (N, 1, H, W) and labels (N,).
    """

    def __init__(self, num_channels: int, num_classes: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.num_channels, self.num_classes = num_channels, num_classes

    def _order(self, epoch: int) -> Tensor:
        """The rows of the smaller set's images that make up each stack.   # (N, C)"""
        seeds = [derive_seed(self.seed, epoch, channel) for channel in range(self.num_channels)]
        return torch.stack([self._permute(seed) for seed in seeds], dim=1)

    def _take(self, rows: Tensor) -> Batch:
        return stack(self.images, self.labels, rows, self.num_classes)


def permutations(num: int, num_channels: int, seed: int) -> Tensor:
    """Rows of stacks in which each image is once in every channel.   # (num, C)"""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(num, generator=generator) for _ in range(num_channels)], dim=1)


def stack(images: Tensor, labels: Tensor, rows: Tensor, num_classes: int) -> Batch:
    """Images (N, 1, H, W) and labels (N,) -> stacks (S, C, H, W) of these rows (S, C), and their classes (S,).

    label = K^(C-1) k_1 + ... + K k_(C-1) + k_C:  a stack of the digits 1, 2 and 3 has class 123.
    """
    num_channels = rows.shape[1]
    places = num_classes ** torch.arange(num_channels - 1, -1, -1, device=labels.device)  # 100, 10, 1
    channels = images.index_select(0, rows.flatten())  # (S * C, 1, H, W)
    return channels.view(len(rows), num_channels, *images.shape[2:]), (labels[rows] * places).sum(dim=1)
