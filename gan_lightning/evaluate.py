"""Score a trained generator beside real images: checkpoint -> samples -> a table, evaluation.json, figures."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gan_lightning.cli import command
from gan_lightning.paths import shorten

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.table import Table

    from gan_lightning.metrics.scores import Scores

log = logging.getLogger(__name__)


@command("evaluate")
def main(config: DictConfig) -> None:
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from rich.console import Console

    from gan_lightning.checkpoint import load_gan
    from gan_lightning.data.module import sample_blocks
    from gan_lightning.figures import draw
    from gan_lightning.files import written_whole
    from gan_lightning.images import to_uint8
    from gan_lightning.metrics.scores import load_reference, score
    from gan_lightning.randomness import block_seed
    from gan_lightning.runs import find_checkpoint, run_config, run_folder

    if not config.get("metrics"):
        raise ValueError("metrics=none: there is nothing to score with; leave it out, or try metrics=judge")
    if not isinstance(config.seed, int) or config.seed < 0:
        raise ValueError(f"seed={config.seed} must be a whole number, 0 or more")
    file = find_checkpoint(config.ckpt)
    if "data" not in config:
        run = run_config(file)
        run.pop("metrics", None)  # it may have been scored otherwise while it trained
        config = cast("DictConfig", OmegaConf.merge(run, config))
    gan = load_gan(file).to("cuda" if torch.cuda.is_available() else "cpu")
    data = instantiate(config.data)
    data.prepare_data()
    extractor = instantiate(config.metrics.extractor)
    reference = load_reference(data.name, data.images(), data.images("test"), extractor, config.metrics.cache)
    reference.check(config.num_samples)
    blocks = sample_blocks(config.num_samples)
    images = torch.cat([to_uint8(gan.sample(size, block_seed(block, config.seed))).cpu() for block, size in blocks])
    scores, control = score(images, reference), reference.control(config.num_samples)

    terminal = Console(soft_wrap=True)
    about = scores.about
    terminal.print(f"{about['num_samples']:,} samples against {about['reference']}", highlight=False)
    terminal.print(as_table(scores, control))
    terminal.print(
        f"judge {about['judge']}, SHA-256 {str(about['judge_sha256'])[:12]}; "
        f"control: {control.about['num_samples']:,} images of the {control.about['samples']}",
        highlight=False,
    )
    out = Path(config.out or run_folder(file) / "evaluation").expanduser()
    record = {"checkpoint": str(file), "seed": config.seed, "generated": scores.to_dict(), "control": control.to_dict()}
    with written_whole(out / "evaluation.json") as part:
        part.write_text(json.dumps(record, indent=2) + "\n")
    draw(images, data.images(), scores, reference.class_counts, out)
    log.info("evaluation.json and figures are in %s", shorten(out))


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
