"""Any folder of pictures as a data set; resized once, and cached in one file."""

import hashlib
import json
import logging
import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from gan_lightning.data.fetch import writing
from gan_lightning.data.fitting import Unfit, check_channels, fit
from gan_lightning.files import expand, written_whole

log = logging.getLogger(__name__)

FORMAT = 2  # of a cached file; raise it with any change of its content
TEST_EVERY = 10  # of this many pictures the last is in the test split
NAMED = 5  # names of files in a line
TEST_FOLDERS = ("test", "val", "valid", "validation")  # beside train/; the first one found


class File(NamedTuple):
    path: str  # below the folder, parts divided by /
    size: int  # bytes
    modified: int  # ns since the epoch


class FolderReader:
    """Pictures in any format that Pillow reads: a folder for each class, or all in one folder, at any depth.

        root/cat/1.png root/dog/2.jpg     classes, numbered in the order of their folders' names
        root/1.png root/2.jpg             one class
        root/train/… root/test/…          either of these, already split (or val/); else every tenth is the test split

    Leaves out, with a warning, files that cannot be read and pictures beside folders of classes. Ignores hidden files.

    Args:
        image_shape: C, H, W; every picture is cropped and resized to it, see `fitting.py`.
        cache: folder for the result, a file for each folder and shape. It is made again when a picture is added or
            removed, or its size or time changes; it may be deleted at any time.

    Raises:
        ValueError: if image_shape has neither 1 nor 3 channels.
    """

    def __init__(self, image_shape: Sequence[int], cache: str | Path) -> None:
        check_channels(image_shape)
        self.image_shape = tuple(image_shape)
        self.cache = expand(cache, "cache")

    def fetch(self, root: Path) -> None:
        """Read the pictures, unless they are in the cache.

        Raises:
            ValueError: if there are none, or the cache cannot be written.
        """
        with safetensors.safe_open(self._cached(root), "pt") as file:
            about = json.loads(file.metadata()["about"])
        splits = " and ".join(f"{number:,} to {split}" for split, number in about["pictures"].items())
        classes = f"{len(about['classes'])} classes ({named(about['classes'][:NAMED], len(about['classes']))})"
        log.info("%s: pictures of %s, %s, %s", root, classes, splits, about["split_by"])
        if about["left_out"]:
            log.warning(
                "data.root=%s: %d files are left out, which are no pictures to use or beside the classes' folders: %s",
                root, about["left_out"], named(about["some_left_out"], about["left_out"]),
            )  # fmt: skip

        base = root / "train" if (root / "train").is_dir() else root
        folders = [path.name for path in sorted(base.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        empty = [name for name in folders if name not in about["classes"]]
        if empty and about["classes"] != [""]:
            log.warning(
                "data.root=%s: folders without a picture are no classes, and the others are numbered without them: %s",
                root, named(empty[:NAMED], len(empty)),
            )  # fmt: skip

    def read(self, root: Path, split: str) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) uint8 and labels (N,) int64 of the split "train" or "test".

        Raises:
            ValueError: as `fetch`; or if the split is empty.
        """
        with safetensors.safe_open(self._cached(root), "pt") as file:
            # Copies: a map of the file would crash the process if the file changed.
            images, labels = (file.get_tensor(f"{split}.{name}").clone() for name in ("images", "labels"))
        if not len(images):
            raise ValueError(
                f"data.root={root} has no {split} split: every {TEST_EVERY}th picture is in the test split, the others "
                "in the train split; add pictures, or divide them into folders train/ and test/"
            )
        return images, labels

    def _cached(self, root: Path) -> Path:
        """The cached file of a folder's pictures as they are now; made if missing."""
        files = listing(root)
        key = hashlib.sha256(f"{root} {self.image_shape}".encode()).hexdigest()[:16]
        content = hashlib.sha256(json.dumps([FORMAT, files]).encode()).hexdigest()
        path = self.cache / f"{root.name[:50]}-{key}.safetensors"  # 200 of the 255 bytes that a name may have
        if not holds(path, content):
            with writing(self.cache, "data.reader.cache"):
                self.cache.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    if not holds(path, content):  # again: another process may have made it meanwhile
                        log.info("Reading %s files of %s, for this once", f"{len(files):,}", root)
                        tensors, about = self._read_all(root, files)
                        with written_whole(path) as part:
                            save_file(tensors, part, {"content": content, "about": json.dumps(about)})
        return path

    def _place(self, path: Path, row: Tensor, number: int, reasons: dict[int, str]) -> bool:
        """Read a picture into its row; False if that fails. Pillow raises many kinds of errors."""
        try:
            with Image.open(path) as picture:
                picture.draft(None, (2 * self.image_shape[2], 2 * self.image_shape[1]))  # large JPEGs: faster
                row[:] = fit(picture, self.image_shape)
        except MemoryError:
            raise
        except Image.DecompressionBombError:
            reasons[number] = f"over {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels; make it smaller"
            return False
        except Unfit as error:
            reasons[number] = str(error)
            return False
        except Exception as error:
            log.debug("%s: %s", path, error)
            return False
        return True

    def _read_all(self, root: Path, files: list[File]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Images and labels of both splits, and facts for the log."""
        paths = [file.path for file in files]
        images = torch.empty(len(paths), *self.image_shape, dtype=torch.uint8)
        reasons: dict[int, str] = {}  # why a whole picture is left out
        with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            warnings.simplefilter("ignore")  # Pillow's, about odd files
            whole, everywhere = [root / path for path in paths], [reasons] * len(paths)
            readable = list(pool.map(self._place, whole, images, range(len(paths)), everywhere))
        tops = {path.split("/")[0] for path in paths if "/" in path}
        test = next((name for name in TEST_FOLDERS if name in tops and "train" in tops), "")
        kept, places = arrange(paths, readable, test)
        told = [f"{path} ({reasons[number]})" if number in reasons else path for number, path in enumerate(paths)]
        if not kept:
            raise ValueError(
                f"data.root={root} has no picture that can be read, among {len(paths)} files{': ' if paths else ''}"
                f"{named(told[:NAMED], len(paths))}; name a folder of pictures"
            )
        classes = sorted({name for _, name in places})  # "" if all are in one folder
        number_of = {name: number for number, name in enumerate(classes)}
        labels = torch.tensor([number_of[name] for _, name in places])
        tensors: dict[str, Tensor] = {}
        for split in ("train", "test"):
            rows = torch.tensor([row for row, (own, _) in enumerate(places) if own == split], dtype=torch.int64)
            tensors[f"{split}.images"] = images[torch.tensor(kept)[rows]]
            tensors[f"{split}.labels"] = labels[rows]
        left_out = sorted(set(range(len(paths))) - set(kept))
        return tensors, {
            "pictures": {split: len(tensors[f"{split}.labels"]) for split in ("train", "test")},
            "split_by": f"by its folders train/ and {test}/" if test else f"every {TEST_EVERY}th to test",
            "classes": classes,
            "left_out": len(left_out),
            "some_left_out": [told[number] for number in left_out[:NAMED]],
        }


def listing(root: Path) -> list[File]:
    """All files below a folder except hidden ones, sorted by path. Links are followed, but not in circles.

    Raises:
        ValueError: if there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"data.root={root} is no folder; name one with pictures: data.root=<folder>")
    files = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name) and not leads_up(Path(folder, name))]
        for name in names:
            path = Path(folder, name)
            try:
                state = path.stat()
            except OSError:  # a link to nowhere, reported as a file that cannot be read
                state = path.lstat()
            is_device = not stat.S_ISREG(state.st_mode) and not stat.S_ISLNK(state.st_mode)  # reading one may never end
            if not is_hidden(name) and not is_device:
                files.append(File(path.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns))
    return sorted(files)


def leads_up(path: Path) -> bool:
    """Is it a link to a folder above it? A walk would go in circles."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def arrange(paths: list[str], readable: list[bool], test: str) -> tuple[list[int], list[tuple[str, str]]]:
    """Numbers of the pictures to use, and for each its split and the name of its class.

    Args:
        test: the folder of the test split, beside train/; empty: there is none.
    """
    kept, places = [], []
    for number, path in enumerate(paths):
        *folders, _ = path.split("/")
        split = folders.pop(0) if test and folders else ""
        if readable[number] and (split in ("train", test) or not test):
            kept.append(number)
            places.append(("test" if split == test else split, folders[0] if folders else ""))
    if any(name for _, name in places):
        kept = [number for number, (_, name) in zip(kept, places, strict=True) if name]
        places = [place for place in places if place[1]]
    if not test:
        splits = ["train" if row % TEST_EVERY else "test" for row in range(1, len(kept) + 1)]
        places = [(split, name) for split, (_, name) in zip(splits, places, strict=True)]
    return kept, places


def holds(path: Path, content: str) -> bool:
    """Is this the cached file of these pictures, whole?"""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata()["content"] == content
    except (OSError, safetensors.SafetensorError, TypeError, KeyError):
        return False


def named(some: list[str], number: int) -> str:
    """Names for a line, and dots if there are more of them."""
    return ", ".join(some) + (", …" if number > len(some) else "")
