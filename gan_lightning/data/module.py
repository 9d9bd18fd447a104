"""A data set as one uint8 tensor; seeded batches of it, normalised to [-1, 1] on the device.

Shapes: B real images per iteration over all devices, N images in a split, C channels, H height, W width.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from gan_lightning.files import expand
from gan_lightning.images import normalize
from gan_lightning.noise import derive_seed, sample_blocks

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]


class Reader(Protocol):
    """The interface of a data set: how its files are fetched and read."""

    def fetch(self, root: Path) -> None:
        """Put missing files into `root`. Called by one process of each node."""

    def read(self, root: Path, split: str) -> Batch:
        """Images (N, C, H, W) uint8 and labels (N,) int64 of the split "train" or "test"."""


class Tensors:
    """A Reader of images that are in memory already."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.batch = images, torch.zeros(len(images), dtype=torch.int64) if labels is None else labels

    def fetch(self, root: Path) -> None: ...

    def read(self, root: Path, split: str) -> Batch:
        if split != "train":
            raise ValueError(f"these images are a train split only; there is no {split} split to read")
        return self.batch


class ImageDataModule(LightningDataModule):
    """Real images: the train split in batches for the Trainer, and either split as a whole for scores and pictures.

    Args:
        root: folder of the data set's files; `~` is the home folder.
        reader: knows the files of this data set.
        image_shape: C, H, W.
        batch_size: B, real images per iteration over all devices; each takes an equal share.
        replacement: draw every batch from the whole split, rather than each image once per epoch.
        seed: of the order of the images.
        num_val_samples: generated images in an evaluation, over all devices; 0 switches validation off.
        name: of the data set, for scores.
        num_classes: K, labels are 0 to K - 1; 0: unknown, for networks that do not use labels.

    Raises:
        ValueError: if a value cannot be used.
    """

    def __init__(
        self,
        root: str | Path,
        reader: Reader,
        image_shape: tuple[int, int, int],
        batch_size: int = 128,
        replacement: bool = False,
        seed: int = 0,
        num_val_samples: int = 0,
        name: str = "images",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if not _is_positive_int(batch_size):
            raise ValueError(f"batch_size={batch_size} must be a whole number from 1 up; try 128")
        if len(image_shape) != 3 or not all(map(_is_positive_int, image_shape)):
            raise ValueError(
                f"image_shape={list(image_shape)} must be channels, height and width, each from 1 up; try [1,28,28]"
            )
        self.root = expand(root, "root").absolute()
        self.reader = reader
        self.image_shape = tuple(image_shape)
        self.batch_size = batch_size
        self.replacement = replacement
        self.seed = seed
        self.num_val_samples = num_val_samples
        self.name = name
        self.num_classes = num_classes
        if num_val_samples:  # an empty val_dataloader would make Lightning warn at every start
            self.val_dataloader = self._val_blocks
        self._splits: dict[str, Batch] = {}

    @classmethod
    def from_tensors(cls, images: Any, labels: Any = None, **settings: Any) -> "ImageDataModule":
        """A data set of your own.

        Args:
            images: (N, C, H, W) uint8, or (N, H, W) if grey; a tensor or a NumPy array.
            labels: (N,) whole numbers, in a tensor, array or list; or None.
            settings: batch_size, replacement, seed, name, num_classes.

        Raises:
            ValueError: if images or labels are of another kind, or their numbers differ.
        """
        images, labels = as_images(images), None if labels is None else as_labels(labels)
        if labels is None and settings.get("num_classes"):
            raise ValueError(f"num_classes={settings['num_classes']}: without labels there are no classes; give labels")
        _, channels, height, width = images.shape
        data = cls(".", Tensors(images, labels), (channels, height, width), **settings)
        data.images()  # checks shape and labels
        return data

    def prepare_data(self) -> None:
        self.reader.fetch(self.root)

    def setup(self, stage: str | None = None) -> None:
        if stage == "fit":
            self._check_batch_size()

    def images(self, split: str = "train") -> Tensor:
        """All images of the split "train" or "test", (N, C, H, W) uint8; read on first use."""
        return self._split(split)[0]

    def labels(self, split: str = "train") -> Tensor:
        """Their classes, (N,) int64."""
        return self._split(split)[1]

    @cached_property
    def sha256(self) -> str:
        """Hash of the train split, images and labels: a run resumes on the same data only."""
        images, labels = self._split("train")
        digest = hashlib.sha256(str(tuple(images.shape)).encode())
        for tensor in images, labels:
            digest.update(tensor.contiguous().flatten().numpy().data)
        return digest.hexdigest()

    def state_dict(self) -> dict[str, str]:
        return {"sha256": self.sha256}

    def load_state_dict(self, state: dict[str, str]) -> None:
        if self.trainer and not self.trainer.training:  # validation and testing may use any data
            return
        if state != self.state_dict():
            raise ValueError(
                f"data.root={self.root}: its images or labels are not those that the run has been trained on; "
                "bring them back, or start a new run, without resume="
            )

    def _val_blocks(self) -> "BlockLoader":
        rank, world_size = self._place()
        return BlockLoader(sample_blocks(self.num_val_samples)[rank::world_size])

    def num_drawn(self, limit: int | float) -> int:
        """Generated images in an evaluation in which each device draws `limit` blocks, or this share of its blocks.

        Args:
            limit: `trainer.limit_val_batches`.
        """
        _, world_size = self._place()
        shares = [sample_blocks(self.num_val_samples)[rank::world_size] for rank in range(world_size)]
        drawn = [share[: limit if isinstance(limit, int) else int(limit * len(share))] for share in shares]
        return sum(size for blocks in drawn for _, size in blocks)

    def train_dataloader(self) -> "BatchLoader":
        return self._loader(BatchLoader, *self._split("train"))

    def _loader(self, kind: Callable[..., "BatchLoader"], images: Tensor, labels: Tensor) -> "BatchLoader":
        rank, world_size = self._place()
        device = self._home(images)
        return kind(
            images=images.to(device),
            labels=labels.to(device),
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            seed=self.seed,
            replacement=self.replacement,
            # Lightning forgets a loader's state where a run is resumed between two epochs.
            iteration=self.trainer.global_step if self.trainer else 0,
        )

    def _home(self, images: Tensor) -> torch.device:
        """Device for the training images: the GPU if they take less than a quarter of its free memory."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
            return images.device
        return device

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        # Lightning sends every loader's batches through here; only those for training hold real images.
        if self.trainer and not self.trainer.training:
            return batch
        images, labels = batch
        images = normalize(images)
        return (self.trainer.precision_plugin.convert_input(images) if self.trainer else images), labels

    def _split(self, split: str) -> Batch:
        if split not in self._splits:
            images, labels = self._read(split)
            shape = tuple(images.shape[1:])
            if shape != self.image_shape:
                raise ValueError(
                    f"data.image_shape={list(self.image_shape)} is not the shape of the images in "
                    f"data.root={self.root}; try {str(list(shape)).replace(' ', '')}"
                )
            self._check_labels(labels, len(images))
            if split == "train" and len(found := labels.unique()) < self.num_classes:
                enough = int(found.max()) + 1
                log.warning(
                    "data.num_classes=%d: the train split of %s has images of only %d classes, and the others stay "
                    "untrained%s", self.num_classes, self.name, len(found),
                    f"; try data.num_classes={enough}" if enough < self.num_classes else "",
                )  # fmt: skip
            self._splits[split] = images, labels
        return self._splits[split]

    def _read(self, split: str) -> Batch:
        return self.reader.read(self.root, split)

    def _check_labels(self, labels: Tensor, num_images: int) -> None:
        if labels.shape != (num_images,) or labels.dtype != torch.int64:
            raise ValueError(
                f"{self.name}: labels must be ({num_images},) int64, one for each image, "
                f"not {tuple(labels.shape)} {labels.dtype}"
            )
        if not self.num_classes:
            return
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= self.num_classes:
            raise ValueError(
                f"data.num_classes={self.num_classes}: labels must be 0 to {self.num_classes - 1}, and those of "
                f"{self.name} are {least} to {most}; "
                f"number them from 0, with data.num_classes={most + 1}"
            )

    def _check_batch_size(self) -> None:
        num_images = len(self.images())
        if self.batch_size > num_images:
            raise ValueError(
                f"data.batch_size={self.batch_size} is larger than the {num_images} images of the data set; "
                f"try {min(128, num_images)}"
            )
        world_size = self.trainer.world_size if self.trainer else 1
        if self.batch_size % world_size:
            assert self.trainer is not None
            devices = f"trainer.devices={self.trainer.num_devices}"
            if self.trainer.num_nodes > 1:
                devices += f" times trainer.num_nodes={self.trainer.num_nodes}"
            fit = max(self.batch_size // world_size, 1) * world_size
            raise ValueError(f"data.batch_size={self.batch_size} must be divisible by {devices}; try {fit}")


class BatchLoader:
    """Batches in an order that depends only on the seed and the iteration, so that a run resumes exactly.

    Each `for` loop goes on where the last one stopped, for as many batches as an epoch has. The order of an epoch is a
    permutation of the images, or draws with replacement. The last, short batch of an epoch is left out, so that all
    batches have one shape.

    Args:
        images: (N, C, H, W) uint8; batches are formed on their device.
        labels: (N,) int64.
        batch_size: B, of all ranks together; rank r takes the r-th of world_size equal blocks of its rows.
        iteration: batches handed out so far, over all epochs.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        replacement: bool = False,
        iteration: int = 0,
    ) -> None:
        self.images, self.labels = images, labels
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.seed = seed
        self.replacement = replacement
        self.iteration = iteration

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        share = self.batch_size // self.world_size
        ordered_epoch, order = -1, torch.empty(0)
        # A full epoch's number, even from the middle of one: Lightning counts by itself, also after a resume, and with
        # limit_train_batches its epochs end elsewhere than ours.
        for _ in range(len(self)):
            epoch, position = divmod(self.iteration, len(self))
            if epoch != ordered_epoch:
                ordered_epoch, order = epoch, self._order(epoch).to(self.images.device)  # the same on all devices
            start = position * self.batch_size + self.rank * share
            self.iteration += 1  # before the yield: a checkpoint of this iteration must not repeat it
            yield self._take(order[start : start + share])

    def state_dict(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]

    def _order(self, epoch: int) -> Tensor:
        """Rows of the images, in the order of an epoch.   # (N,)"""
        return self._permute(derive_seed(self.seed, epoch))

    def _permute(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        num_images = len(self.images)
        if self.replacement:
            return torch.randint(num_images, (num_images,), generator=generator)
        return torch.randperm(num_images, generator=generator)

    def _take(self, rows: Tensor) -> Batch:
        # images[rows] is six times slower: 0.4 ms for 128 images of MNIST.
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)


class BlockLoader:
    """The blocks of samples that a device draws. Not a list, which Lightning takes for a list of loaders."""

    def __init__(self, blocks: list[tuple[int, int]]) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.blocks)


def as_images(images: Any) -> Tensor:
    """A tensor or an array of images as (N, C, H, W) uint8.

    Raises:
        ValueError: if it is something else; the message says how to convert it.
    """
    if not isinstance(images, Tensor):
        array = np.array(images)  # a copy: the array may be read-only, or run backwards
        if array.dtype.kind not in "biuf":
            raise ValueError(f"images must be a tensor or a NumPy array of numbers, not {array.dtype}")
        images = torch.from_numpy(array)
    if images.dim() == 3:
        images = images.unsqueeze(1)  # (N, H, W) -> (N, 1, H, W)
    found = f"images must be (N, C, H, W) uint8, not {tuple(images.shape)} {images.dtype}"
    if images.dim() != 4 or not images.numel():
        raise ValueError(found)
    if images.dtype != torch.uint8:
        raise ValueError(f"{found}; of numbers in [0, 1]: (255 * images).round().to(torch.uint8)")
    if images.shape[1] > 4 and images.shape[3] in (1, 3, 4):
        raise ValueError(
            f"{found}; channels come first: images.permute(0, 3, 1, 2), of an array .transpose(0, 3, 1, 2)"
        )
    return images


def as_labels(labels: Any) -> Tensor:
    """A tensor, an array or a list of whole numbers as int64; floats stay as they are, to be refused.

    Raises:
        ValueError: if they are not numbers.
    """
    if not isinstance(labels, Tensor):
        array = np.array(labels)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"labels must be (N,) int64, not {array.dtype}; give the number of each image's class")
        labels = torch.from_numpy(array)
    return labels if labels.is_floating_point() else labels.long()


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
