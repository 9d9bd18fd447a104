"""Pictures that explain a score."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gan_lightning.conditioning import MOST_ROWS, spread_evenly
from gan_lightning.images import grid, normalize, save_png
from gan_lightning.metrics.scores import Scores

BAR, HEIGHT, MARGIN = 24, 200, 20  # pixels


def save_figures(images: Tensor, training: Tensor, scores: Scores, data_counts: Tensor, folder: Path) -> None:
    """Write nearest.png and, if the classes of the samples are known, classes.png and class_histogram.png.

    Args:
        images: (N, C, H, W) uint8, generated.  training: (T, C, H, W) uint8.
        data_counts: (K,) training images of each class, by the judge.
    """
    save_png(grid(normalize(beside_nearest(images, training, scores)), nrow=16), folder / "nearest.png")
    if scores.class_counts:
        save_png(grid(normalize(by_class(images, scores.classes, len(data_counts))), nrow=10), folder / "classes.png")
        class_histogram(scores.class_counts, data_counts.tolist()).save(folder / "class_histogram.png")


def by_class(images: Tensor, classes: Tensor, num_classes: int, each: int = 10) -> Tensor:
    """A row with the first samples of each class; black where there are fewer.   # (min(K, 50) * each, C, H, W)

    With more than 50 classes: 50 of them, spread evenly.
    """
    shown = spread_evenly(num_classes, MOST_ROWS)
    rows = torch.zeros(len(shown), each, *images.shape[1:], dtype=images.dtype)
    for row, number in enumerate(shown.tolist()):
        some = images[classes == number][:each]
        rows[row, : len(some)] = some
    return rows.flatten(0, 1)


def beside_nearest(images: Tensor, training: Tensor, scores: Scores, pairs: int = 64) -> Tensor:
    """The samples that look most like copies, each followed by its nearest training image.   # (2 * pairs, C, H, W)"""
    suspects = scores.nearness.ratio.argsort()[:pairs]
    return torch.stack([images[suspects], training[scores.nearness.image[suspects]]], dim=1).flatten(0, 1)


def class_histogram(counts: list[int], data_counts: list[int]) -> Image.Image:
    """Two bars per class: share of the samples (dark) and of the data (light). No numbers with many classes."""
    width, is_wide = (BAR, True) if len(counts) <= MOST_ROWS else (1, False)
    shares = [[count / sum(split) for count in split] for split in (counts, data_counts)]
    top = max(map(max, shares))
    picture = Image.new("RGB", (2 * MARGIN + len(counts) * 3 * width, HEIGHT + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(picture)
    for side, colour in enumerate(("#1f4e79", "#b8cce0")):
        for number, share in enumerate(shares[side]):
            left = MARGIN + number * 3 * width + side * width
            right = left + max(width - 2, 0)
            pen.rectangle((left, MARGIN + HEIGHT * (1 - share / top), right, MARGIN + HEIGHT), fill=colour)
            if is_wide:
                pen.text((left, MARGIN + HEIGHT * (1 - share / top) - 12), f"{share:.0%}", fill="black")
    for number in range(len(counts) if is_wide else 0):
        pen.text((MARGIN + number * 3 * BAR + BAR - 4, MARGIN + HEIGHT + 4), str(number), fill="black")
    return picture
