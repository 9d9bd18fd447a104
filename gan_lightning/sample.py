"""Draw images from a trained generator."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gan_lightning.cli import command

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


@command("sample")
def main(config: DictConfig) -> None:
    if config.format not in ("png", "npy"):
        raise ValueError(f"format={config.format} must be png or npy")
    for key in ("n", "nrow"):
        if not isinstance(config[key], int) or config[key] < 1:
            raise ValueError(f"{key}={config[key]} must be a whole number, 1 or more")

    import numpy as np

    from gan_lightning import images
    from gan_lightning.checkpoint import load_gan
    from gan_lightning.runs import find_checkpoint, run_folder

    file = find_checkpoint(config.ckpt)
    samples = load_gan(file).sample(config.n, seed=config.seed)
    out = Path(config.out or run_folder(file) / "samples" / f"seed_{config.seed}.{config.format}").expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    if config.format == "png":
        images.save_png(images.grid(samples, config.nrow), out)
    else:
        with out.open("wb") as target:
            np.save(target, samples.numpy())
    log.info("%d images of %s -> %s", config.n, file, out)


if __name__ == "__main__":
    sys.exit(main())
