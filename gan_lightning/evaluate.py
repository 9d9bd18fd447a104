"""Score a trained generator next to real images: checkpoint -> samples -> a table, evaluation.json, figures."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from gan_lightning.cli.checks import check_values, one_of, whole
from gan_lightning.cli.command import command
from gan_lightning.files import conf_dir, shorten, written_whole
from gan_lightning.terminal import working

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig
    from rich.table import Table
    from torch import Tensor

    from gan_lightning.data import ImageDataModule
    from gan_lightning.gan import GAN
    from gan_lightning.metrics.scores import Scores

log = logging.getLogger(__name__)

NUM_SAMPLES = 10_000  # or as many as the run was scored on, if that is more
RULES = {
    "seed": whole(0),
    "num_samples": whole(1, null="as many as the run was scored on"),
    "train_on_synthetic": one_of(True, False),
}


@command("evaluate")
def main(config: DictConfig) -> None:
    import torch
    from hydra.utils import instantiate

    from gan_lightning.files import output_path
    from gan_lightning.metrics.figures import save_figures
    from gan_lightning.metrics.scores import load_reference, score
    from gan_lightning.runs.checkpoint import load_gan
    from gan_lightning.runs.folder import find_checkpoint, run_folder

    check_metrics(config)
    check_values(config, RULES)
    file = find_checkpoint(config.ckpt)
    out = output_path(config.out, run_folder(file) / "evaluation", example=None)
    config, num_samples = settings_of_run(config, file)
    gan = load_gan(file).to("cuda" if torch.cuda.is_available() else "cpu")
    is_conditional = bool(gan.conditioning.num_classes)
    if config.train_on_synthetic and not is_conditional:
        raise ValueError(
            f"train_on_synthetic=true: the generator of {file} has no classes, so that "
            "nothing can be learned from its images; leave it out, or train one with conditioning=projection"
        )
    data = instantiate(config.data)
    data.prepare_data()
    extractor = instantiate(config.metrics.extractor)
    labels = data.labels("test") if is_conditional else None
    real = data.images(), data.images("test")
    reference = load_reference(data.name, *real, extractor, config.metrics.cache, held_out_labels=labels)
    reference.check(num_samples)
    images, labels = draw_samples(gan, num_samples, config.seed)
    scores, control = score(images, reference, labels), reference.control(num_samples)
    record: dict[str, Any] = {"checkpoint": str(file), "seed": config.seed}
    if config.train_on_synthetic:
        record["train_on_synthetic"] = add_accuracy(scores, control, images, labels, data)
    # Files first: whoever reads the rest may have gone away.
    out.mkdir(parents=True, exist_ok=True)
    record |= {"generated": scores.to_dict(), "control": control.to_dict()}
    with written_whole(out / "evaluation.json") as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    save_figures(images, data.images(), scores, reference.class_counts, out)
    show(scores, control, record)
    log.info("evaluation.json and figures are in %s", shorten(out))


def check_metrics(config: DictConfig) -> None:
    """Raise ValueError if nothing is chosen to score with."""
    from hydra.core.hydra_config import HydraConfig

    if config.get("metrics"):
        return
    chosen = HydraConfig.get()
    if "metrics=none" in chosen.overrides.task:
        raise ValueError("metrics=none: there is nothing to score with; leave it out, or try metrics=judge")
    name = chosen.runtime.choices["data"]
    raise ValueError(
        f"data={name} has no scores of its own; add metrics=judge, and train the judge before if there is none: "
        f"{shorten(conf_dir() / 'data' / name)}.yaml says how"
    )


def settings_of_run(config: DictConfig, file: Path) -> tuple[DictConfig, int]:
    """Take from the run's config what was not typed: the data set, its judge, and the number of samples.

    Args:
        file: the checkpoint.

    Returns:
        The config to go on with, and the number of samples.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from gan_lightning.runs.folder import run_config

    num_samples = max(NUM_SAMPLES, config.metrics.num_samples)
    if "_target_" not in config.data:
        run = run_config(file)
        OmegaConf.set_struct(config, False)
        config.data = {key: value for key, value in config.data.items() if value is not None}
        if trained_with := run.pop("metrics", None):
            num_samples = max(num_samples, trained_with.num_samples)
            keys = ("metrics=", "metrics.extractor")
            typed = any(word.lstrip("+~").startswith(keys) for word in HydraConfig.get().overrides.task)
            if "extractor" in trained_with and not typed:
                config.metrics.extractor = trained_with.extractor
        config = cast("DictConfig", OmegaConf.merge(run, config))
    return config, num_samples if config.num_samples is None else config.num_samples


def draw_samples(gan: GAN, num_samples: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """Generated images, (N, C, H, W) uint8, and their classes, (N,) int64; None without classes."""
    import torch

    from gan_lightning.images import to_uint8
    from gan_lightning.noise import sample_blocks

    drawn = [gan.sample_block(block, size, seed) for block, size in sample_blocks(num_samples)]
    images = torch.cat([to_uint8(part).cpu() for part, _ in drawn])
    labels = [part for _, part in drawn if part is not None]
    return images, torch.cat(labels) if labels else None


def add_accuracy(
    scores: Scores, control: Scores, images: Tensor, labels: Tensor | None, data: ImageDataModule
) -> dict[str, int]:
    """Add to both scores the accuracy of a classifier that learned from such images; return how it was trained."""
    import torch

    from gan_lightning.metrics.train_on_synthetic import EPOCHS, classification_accuracy

    assert labels is not None
    real, test = ((data.images(split), data.labels(split)) for split in ("train", "test"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with working(f"training two classifiers for {EPOCHS} epochs each"):
        accuracy = classification_accuracy(images, labels, *real, *test, device=device)
    scores.values["train_on_synthetic"], control.values["train_on_synthetic"] = accuracy
    return {"num_samples": len(images), "epochs": EPOCHS}


def show(scores: Scores, control: Scores, record: dict[str, Any]) -> None:
    """Print the table of scores, and what they were computed with."""
    from gan_lightning.terminal import printer

    terminal = printer(soft_wrap=True, markup=False)  # a name may have brackets
    about = scores.about
    terminal.print(f"{about['num_samples']:,} samples against {about['reference']}", highlight=False)
    terminal.print(as_table(scores, control))
    terminal.print(
        f"judge {about['judge']}, SHA-256 {str(about['judge_sha256'])[:12]}; "
        f"control: {control.about['num_samples']:,} images of the {control.about['samples']}{accuracy_of(about)}",
        highlight=False,
    )
    if trained := record.get("train_on_synthetic"):
        terminal.print(
            f"train_on_synthetic: accuracy on the test split after {trained['epochs']} epochs of training on the "
            "samples; control: on as many real images",
            highlight=False,
        )


def accuracy_of(about: dict[str, str | int | float]) -> str:
    """The judge's accuracy, if it knows the classes of the data."""
    return f"; the judge is right on {about['judge_accuracy']:.2%}" if "judge_accuracy" in about else ""


def as_table(scores: Scores, control: Scores) -> Table:
    """A row per score: generated images, real ones scored the same way, and the ratio between the two."""
    from rich.table import Table

    table = Table()
    for heading in ("score", "generated", "control", "ratio"):
        table.add_column(heading, justify="left" if heading == "score" else "right")
    for name, value in scores.values.items():
        real = control.values[name]
        ratio = f"{value / real:.2f}" if real and not name.startswith("kid") else "-"  # KID may be 0 or below
        table.add_row(name, f"{value:.4f}", f"{real:.4f}", ratio)
    return table


if __name__ == "__main__":
    sys.exit(main())
