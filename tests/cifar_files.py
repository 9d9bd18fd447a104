"""A small CIFAR-10 in its own format, batches of pickled arrays, for tests that need data and no network."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import ClassVar

import torch
from torchvision.datasets import CIFAR10

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class SmallCIFAR10(CIFAR10):
    """torchvision's reader for batches of any content: its MD5s are those of the published ones."""

    train_list: ClassVar = [[name, None] for name in NAMES[:5]]
    test_list: ClassVar = [[NAMES[5], None]]
    meta: ClassVar = {**CIFAR10.meta, "md5": None}


def batch(name: str, num: int) -> dict:
    """Each class has a colour, with noise; rows are 1024 red, 1024 green, 1024 blue values."""
    draw = torch.Generator().manual_seed(NAMES.index(name))
    labels = torch.arange(num) % 10
    colors = torch.stack([labels * 20, 200 - labels * 15, labels % 3 * 80], dim=1)  # (num, 3)
    noise = torch.randint(20, (num, 3, 1024), generator=draw)
    data = (colors.unsqueeze(2) + noise).to(torch.uint8).flatten(1)
    return {"batch_label": name, "data": data.numpy(), "labels": labels.tolist(), "filenames": ["x.png"] * num}


def write(root: Path, each: int = 40) -> list[str]:
    """Write the seven files; return the Hydra overrides that point `data` to them."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        about = {"label_names": CLASSES, "num_cases_per_batch": each, "num_vis": 3072}
        content = about if name == "batches.meta" else batch(name, each)
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))  # that of the published ones
    known = ", ".join(f"{name}: '{md5}'" for name, md5 in checksums(root).items())
    reader = "data.reader.dataset.path=cifar_files.SmallCIFAR10"
    return [f"data.root={root}", reader, f"data.reader.checksums={{{known}}}", "data.reader.urls=[]"]


def checksums(root: Path) -> dict[str, str]:
    """Of the files in a folder, as VisionReader takes them."""
    files = {f"{FOLDER}/{name}": root / FOLDER / name for name in NAMES}
    return {name: hashlib.md5(path.read_bytes()).hexdigest() for name, path in files.items()}


def pack(root: Path, archive: Path) -> None:
    """The files as the archive that is published."""
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(root / FOLDER, FOLDER)
        readme = b"not asked for"
        member = tarfile.TarInfo(f"{FOLDER}/readme.html")
        member.size = len(readme)
        packed.addfile(member, io.BytesIO(readme))
