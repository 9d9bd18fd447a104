"""Train the judge of a data set, and save it where `load_judge` finds it by the data set's name."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gan_lightning.cli.checks import check_values, whole
from gan_lightning.cli.command import command
from gan_lightning.files import cache_folder, expand

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from gan_lightning.data import ImageDataModule
    from gan_lightning.metrics.judge import Judge

log = logging.getLogger(__name__)


@command("train_judge")
def main(config: DictConfig) -> None:
    check_values(config, {"seed": whole(0), "epochs": whole(1)})

    import torch
    from hydra.utils import instantiate

    from gan_lightning.data import StackedDataModule

    data = instantiate(config.data)
    if data.name == "image_folder":  # the default name of any folder, whose judge would score all others
        raise ValueError("data.name=image_folder: name the judge after your pictures, such as data.name=cats")
    if isinstance(data, StackedDataModule):
        raise ValueError(
            f"data.name={data.name}: stacks need no judge of their own, since their channels are judged one by one: "
            "metrics=stacked_mnist"
        )
    data.prepare_data()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train_and_save(
        data,
        data.name,
        out=config.out,
        seed=config.seed,
        epochs=config.epochs,
        distortion=config.distortion,
        device=device,
        report=log.info,
    )


def train_and_save(
    data: ImageDataModule,
    name: str,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    epochs: int = 12,
    distortion: str = "affine",
    device: str = "cpu",
    report: Callable[[str], None] = print,
) -> Judge:
    """Train a judge on the training split, measure its accuracy on the test split, and save it.

    Args:
        data: fetched, images uint8 and labels int64.
        out: a .safetensors file; None: where `load_judge(name)` looks. Hash and accuracy go to pins.json next to it,
            so that `load_judge` notices a damaged file.
        distortion: `affine` for drawings, `shift` for photographs, see `metrics/classifier.py`.

    Raises:
        ValueError: if `out` does not end in .safetensors, or all images are of one class.
    """
    from gan_lightning.files import output_path, written_whole
    from gan_lightning.metrics.classifier import train_classifier
    from gan_lightning.metrics.judge import pins, save_judge

    default = cache_folder("judges") / f"{name}.safetensors"
    path = output_path(str(out or ""), default if out else expand(default, "out"), example=f"{name}.safetensors")
    if path.suffix != ".safetensors":
        raise ValueError(f"out={out} must end in .safetensors")
    if not data.labels("train").any():
        raise ValueError(
            f"data.root={data.root}: all images are of one class, and a judge learns to tell classes apart; "
            "divide them into folders by class"
        )
    parts = [part(split) for split in ("train", "test") for part in (data.images, data.labels)]
    judge = train_classifier(
        *parts, name=name, seed=seed, epochs=epochs, distortion=distortion, device=device, report=report
    )
    with written_whole(path) as part:
        save_judge(judge, part)
    known = pins(path.parent) | {path.stem: {"sha256": judge.sha256, "test_accuracy": judge.test_accuracy}}
    with written_whole(path.parent / "pins.json") as part:
        part.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    report(f"{path}: test accuracy {judge.test_accuracy:.2%}, SHA-256 {judge.sha256[:16]}")
    return judge


if __name__ == "__main__":
    sys.exit(main())
