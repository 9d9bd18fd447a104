"""Draw images from a trained generator: a grid, a walk through its latent space, an array."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gan_lightning.cli.command import command
from gan_lightning.files import check_suffix, python
from gan_lightning.terminal import working

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console
    from torch import Tensor

    from gan_lightning.gan import GAN

log = logging.getLogger(__name__)

FORMATS = ("png", "gif", "npy")
MOST = 10_000  # images in a picture or an animation, which are made in memory
STEPS = 20  # images of a walk from one z to the next; in an animation, one second
SMALLEST = 0.01  # truncation below which resampling takes for ever, and all images are one


@command("sample")
def main(config: DictConfig) -> None:
    walking, steps, num = read(config)

    import torch

    from gan_lightning import images
    from gan_lightning.conditioning import MOST_ROWS
    from gan_lightning.files import output_path, written_whole
    from gan_lightning.noise import CHUNK_SIZE, draw_latents, walk
    from gan_lightning.runs.checkpoint import load_gan
    from gan_lightning.runs.folder import find_checkpoint, run_folder

    file = find_checkpoint(config.ckpt)
    default = run_folder(file) / "samples" / default_name(config)
    out = output_path(config.out, default, example=f"images.{config.format}")
    gan = load_gan(file)
    num_classes, number = gan.conditioning.num_classes, config["class"]
    check_class(number, num_classes, file)
    in_rows = 0 < num_classes <= MOST_ROWS and number is None and config.format == "png" and not walking
    n = -(-config.n // num_classes) if in_rows else config.n
    latents = draw_latents(n, gan.latent_dim, config.seed, config.truncation)
    if walking:
        latents = walk(torch.cat(list(latents)), steps, ends=config.format == "png")
    elif in_rows:  # a row for each class, in each column one z
        num = n * num_classes
        latents = iter(torch.cat(list(latents)).repeat(num_classes, 1).split(CHUNK_SIZE))
    each = n if in_rows else steps if walking else 1  # images of one class before the next
    batches = show_progress(generate(gan, latents, number, each), num)

    with written_whole(out) as part:
        if config.format == "npy":
            (image,) = gan.generate(torch.zeros(1, gan.latent_dim))
            needed, free = num * image.nbytes, shutil.disk_usage(out.parent).free
            if needed > free:
                raise ValueError(
                    f"n={config.n} makes {needed / 1e9:,.1f} GB, and out={out} has room for {free / 1e9:,.1f} GB; "
                    "draw fewer, or write to another disk"
                )
            images.save_npy(batches, (num, *image.shape), part)
        elif config.format == "gif":
            frames = [frame for batch in batches for frame in images.enlarge(images.to_uint8(batch))]
            with working(f"writing {out.name}"):
                images.save_gif(frames, part, seconds=config.n, pause=False)
        else:
            images.save_png(images.grid(torch.cat(list(batches)), n if in_rows else config.nrow), part)
    rows = f", n={config.n} made full: {n} of each of {num_classes} classes" if in_rows and num != config.n else ""
    log.info("%d images of %s -> %s%s", num, file, out, rows)


def read(config: DictConfig) -> tuple[bool, int, int]:
    """Whether to walk, images on each way, images in all.

    Raises:
        ValueError: for a value that makes no sense.
    """
    if config.format not in FORMATS:
        raise ValueError(f"format={config.format} must be png, gif or npy")
    check_suffix(config.out, config.format, {format: f".{format}" for format in FORMATS})
    for key, least in ("n", 1), ("nrow", 1), ("seed", 0):
        if type(config[key]) is not int or config[key] < least:
            raise ValueError(f"{key}={config[key]} must be a whole number, {least} or more")
    if (number := config["class"]) is not None and (type(number) is not int or number < 0):
        raise ValueError(f"class={number} must be a whole number, 0 or more, or null for all classes")
    if (value := config.truncation) is not None and (type(value) not in (int, float) or not value >= SMALLEST):
        raise ValueError(f"truncation={value} must be a number, {SMALLEST} or more, or null for none; try 0.7")
    if config.interpolate not in (None, True, False):
        raise ValueError(f"interpolate={config.interpolate} must be true or false")
    if config.format == "gif" and config.interpolate is False:
        raise ValueError("interpolate=false must be true for format=gif, an animated walk; or use format=png")
    walking = bool(config.interpolate) or config.format == "gif"
    if walking and config.n == 1:
        raise ValueError("n=1 must be 2 or more for a walk from one z to the next")
    steps = config.nrow if config.format == "png" else STEPS
    num = config.n * steps if walking else config.n
    if config.format != "npy" and num > MOST:
        raise ValueError(
            f"n={config.n} makes {num:,} images, and format={config.format} holds up to {MOST:,}; "
            "draw fewer, or use format=npy"
        )
    return walking, steps, num


def check_class(number: int | None, num_classes: int, file: Path) -> None:
    """Raises ValueError if the generator of a checkpoint cannot draw this class."""
    if number is None or number < num_classes:
        return
    if not num_classes:
        raise ValueError(
            f"class={number}: the generator of {file} knows of no classes; leave it out, or train one that does: "
            f"{python()} -m gan_lightning conditioning=projection"
        )
    raise ValueError(f"class={number}: the generator of {file} knows the classes 0 to {num_classes - 1}")


def generate(gan: GAN, latents: Iterable[Tensor], number: int | None, each: int) -> Iterator[Tensor]:
    """Images of the latents, block by block.

    Args:
        number: their class; None: of a conditional generator all classes in turn, and
        each: so many images of one before the next.
    """
    import torch

    start, num_classes = 0, gan.conditioning.num_classes
    for z in latents:
        index = torch.arange(start, start := start + len(z))
        labels = torch.full_like(index, number) if number is not None else index // each % max(1, num_classes)
        yield gan.generate(z, labels if num_classes else None)


def default_name(config: DictConfig) -> str:
    """A name that tells pictures of one run apart."""
    parts = [f"seed_{config.seed}"]
    if config["class"] is not None:
        parts.append(f"class_{config['class']}")
    if config.interpolate and config.format != "gif":
        parts.append("walk")
    if config.truncation:
        parts.append(f"truncation_{config.truncation}")
    return f"{'_'.join(parts)}.{config.format}"


def show_progress(
    batches: Iterable[Tensor], num: int, console: Console | None = None, patience: float = 2.0
) -> Iterator[Tensor]:
    """Hand the batches on, with a progress bar once they have taken `patience` seconds, on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    console = console or Console(stderr=True)
    if not console.is_interactive:
        yield from batches
        return
    bar = Progress(console=console, transient=True)
    task, begin = bar.add_task("images", total=num), time.monotonic()
    try:
        for images in batches:
            yield images
            bar.advance(task, len(images))
            if time.monotonic() - begin > patience:
                bar.start()
    finally:
        bar.stop()


if __name__ == "__main__":
    sys.exit(main())
