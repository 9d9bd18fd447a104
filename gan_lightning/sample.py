"""Draw images from a trained generator: a grid, a walk through its latent space, an array."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gan_lightning.cli import command, working

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console
    from torch import Tensor

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
    from gan_lightning.checkpoint import load_gan
    from gan_lightning.files import written_whole
    from gan_lightning.latent import draw, walk
    from gan_lightning.runs import find_checkpoint, run_folder

    file = find_checkpoint(config.ckpt)
    out = Path(config.out or run_folder(file) / "samples" / default_name(config)).expanduser()
    if out.is_dir():
        raise ValueError(f"out={out} is a folder; name a file, such as out={out / f'images.{config.format}'}")
    gan = load_gan(file)
    latents = draw(config.n, gan.latent_dim, config.seed, config.truncation)
    if walking:
        latents = walk(torch.cat(list(latents)), steps, ends=config.format == "png")
    batches = show_progress(map(gan.generate, latents), num)

    with written_whole(out) as part:
        if config.format == "npy":
            image = gan.generate(torch.zeros(1, gan.latent_dim))[0]
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
            images.save_png(images.grid(torch.cat(list(batches)), config.nrow), part)
    log.info("%d images of %s -> %s", num, file, out)


def read(config: DictConfig) -> tuple[bool, int, int]:
    """Whether to walk, images on each way, images in all.

    Raises:
        ValueError: for a value that makes no sense.
    """
    if config.format not in FORMATS:
        raise ValueError(f"format={config.format} must be png, gif or npy")
    suffix = Path(config.out or "").suffix.lstrip(".")
    if suffix in FORMATS and suffix != config.format:
        raise ValueError(
            f"out={config.out} is named as another format than format={config.format}; add format={suffix}"
        )
    for key, least in ("n", 1), ("nrow", 1), ("seed", 0):
        if type(config[key]) is not int or config[key] < least:
            raise ValueError(f"{key}={config[key]} must be a whole number, {least} or more")
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


def default_name(config: DictConfig) -> str:
    """A name that tells pictures of one run apart."""
    parts = [f"seed_{config.seed}"]
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
