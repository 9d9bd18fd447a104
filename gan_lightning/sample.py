"""Draw images from a trained generator: a grid, a walk through the latent space, or an array."""

from __future__ import annotations

import itertools
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gan_lightning.cli.checks import Rule, check_values, one_of, whole
from gan_lightning.cli.command import command
from gan_lightning.files import check_suffix, python
from gan_lightning.terminal import working

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from gan_lightning.gan import GAN

log = logging.getLogger(__name__)

FORMATS = ("png", "gif", "npy")
MOST = 10_000  # images in a picture or an animation, which are made in memory
STEPS = 20  # images of a walk from one z to the next; in an animation, one second
SMALLEST = 0.01  # truncation; with less, drawing numbers anew takes for ever and all images are alike
RULES = {
    "format": one_of(*FORMATS),
    "n": whole(1),
    "nrow": whole(1),
    "seed": whole(0),
    "class": whole(0, null="all classes"),
    "truncation": Rule(
        lambda value: value is None or (type(value) in (int, float) and value >= SMALLEST),
        f"a number, {SMALLEST} or more, or null for none; try 0.7",
    ),
    "interpolate": one_of(True, False, None),
}


@command("sample")
def main(config: DictConfig) -> None:
    check(config)

    from gan_lightning.files import output_path
    from gan_lightning.runs.checkpoint import load_gan
    from gan_lightning.runs.folder import find_checkpoint, run_folder

    file = find_checkpoint(config.ckpt)
    default = run_folder(file) / "samples" / default_name(config)
    out = output_path(config.out, default, example=f"images.{config.format}")
    gan = load_gan(file)
    check_class(config["class"], gan.conditioning.num_classes, file)
    latents, num, each, columns = plan(config, gan)
    write(generate(gan, latents, config["class"], each), num, columns, out, config)
    log.info("%d images of %s -> %s", num, file, out)


def check(config: DictConfig) -> None:
    """Raise ValueError for a value that makes no sense."""
    check_values(config, RULES)
    check_suffix(config.out, config.format, {format: f".{format}" for format in FORMATS})
    if config.format == "gif" and config.interpolate is False:
        raise ValueError("interpolate=false must be true for format=gif, an animated walk; or use format=png")
    if walk_steps(config) and config.n == 1:
        raise ValueError("n=1 must be 2 or more for a walk from one z to the next")
    num = config.n * (walk_steps(config) or 1)
    if config.format != "npy" and num > MOST:
        raise ValueError(
            f"n={config.n} makes {num:,} images, and format={config.format} holds up to {MOST:,}; "
            "draw fewer, or use format=npy"
        )


def walk_steps(config: DictConfig) -> int:
    """Images of a walk from one z to the next; 0 if it is not a walk."""
    if not config.interpolate and config.format != "gif":
        return 0
    return int(config.nrow) if config.format == "png" else STEPS


def plan(config: DictConfig, gan: GAN) -> tuple[Iterable[Tensor], int, int, int]:
    """The latents, the number of images, how many are of one class before the next, and the columns of a grid."""
    import torch

    from gan_lightning.conditioning import MOST_ROWS
    from gan_lightning.noise import CHUNK_SIZE, draw_latents, walk

    num_classes, steps = gan.conditioning.num_classes, walk_steps(config)
    all_classes = config["class"] is None and 0 < num_classes <= MOST_ROWS
    a_row_each = all_classes and config.format == "png" and not steps
    n = -(-config.n // num_classes) if a_row_each else config.n
    latents = draw_latents(n, gan.latent_dim, config.seed, config.truncation)
    if steps:
        way = walk(torch.cat(list(latents)), steps, ends=config.format == "png")
        return way, n * steps, steps, config.nrow
    if not a_row_each:
        return latents, n, 1, config.nrow
    if n * num_classes != config.n:
        log.info("n=%d is filled up to %d of each of the %d classes", config.n, n, num_classes)
    return torch.cat(list(latents)).repeat(num_classes, 1).split(CHUNK_SIZE), n * num_classes, n, n


def write(batches: Iterable[Tensor], num: int, columns: int, out: Path, config: DictConfig) -> None:
    """Write `num` images to a file, with a progress bar on a terminal.

    Args:
        batches: (B, C, H, W) each, in [-1, 1].
        columns: of a grid.
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    from gan_lightning import images
    from gan_lightning.files import written_whole
    from gan_lightning.noise import CHUNK_SIZE

    console = Console(stderr=True)
    batches = track(
        batches,
        "drawing images",
        total=-(-num // CHUNK_SIZE),
        console=console,
        transient=True,
        disable=not console.is_interactive,
    )
    with written_whole(out) as part:
        if config.format == "npy":
            first = next(batches := iter(batches))
            check_room(first[0].nbytes * num, config.n, out)
            images.save_npy(itertools.chain([first], batches), (num, *first.shape[1:]), part)
        elif config.format == "gif":
            frames = [frame for batch in batches for frame in images.enlarge(images.to_uint8(batch))]
            with working(f"writing {out.name}"):
                images.save_gif(frames, part, seconds=config.n, pause=False)
        else:
            images.save_png(images.grid(torch.cat(list(batches)), columns), part)


def check_room(needed: int, n: int, out: Path) -> None:
    """Raise ValueError if the disk has less room than `needed` bytes."""
    if needed > (free := shutil.disk_usage(out.parent).free):
        raise ValueError(
            f"n={n} makes {needed / 1e9:,.1f} GB, and out={out} has room for {free / 1e9:,.1f} GB; "
            "draw fewer, or write to another disk"
        )


def check_class(number: int | None, num_classes: int, file: Path) -> None:
    """Raise ValueError if the generator of the checkpoint cannot draw this class."""
    if number is None or number < num_classes:
        return
    if not num_classes:
        raise ValueError(
            f"class={number}: the generator of {file} has no classes; leave it out, or train one that has: "
            f"{python()} -m gan_lightning conditioning=projection"
        )
    raise ValueError(f"class={number}: the generator of {file} has the classes 0 to {num_classes - 1}")


def generate(gan: GAN, latents: Iterable[Tensor], number: int | None, each: int) -> Iterator[Tensor]:
    """Images of the latents, block by block.

    Args:
        number: their class; None: all classes in turn.
        each: how many images of one class come before the next.
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


if __name__ == "__main__":
    sys.exit(main())
