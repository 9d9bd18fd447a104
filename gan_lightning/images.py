"""Pixels: uint8 outside the networks, [-1, 1] inside; grids and picture files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid


def normalize(images: Tensor) -> Tensor:
    """Pixels as the networks see them: `x / 127.5 - 1`, the range of the generator's tanh.

    Args:
        images: (..., C, H, W) uint8 in [0, 255].

    Returns:
        The same shape, float32 in [-1, 1].
    """
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Undo `normalize`: round to the nearest pixel value, and clip what lies outside.

    Args:
        images: (..., C, H, W) float in [-1, 1].

    Returns:
        The same shape, uint8 in [0, 255].
    """
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def grid(images: Tensor, nrow: int = 8) -> Tensor:
    """Lay images out in rows of `nrow`, with a border between them.

    Args:
        images: (N, C, H, W) float in [-1, 1].

    Returns:
        (C or 3, height, width) uint8: make_grid repeats a single channel three times.
    """
    return make_grid(to_uint8(images), nrow=nrow, padding=2, pad_value=64)


def enlarge(images: Tensor, size: int = 128) -> Tensor:
    """Repeat every pixel until the shorter side has at least `size`: (..., H, W) -> (..., k * H, k * W)."""
    factor = -(-size // min(images.shape[-2:]))
    return images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def save_png(picture: Tensor, path: Path) -> None:
    """Write one picture, (C, H, W) uint8."""
    to_pil_image(picture.cpu()).save(path, format="PNG")


def save_gif(frames: Sequence[Tensor], path: Path, seconds: float = 6.0, pause: bool = True) -> None:
    """Write an endless animation that takes `seconds` to play.

    Args:
        frames: pictures of one size, (C, H, W) uint8.
        pause: whether the last frame stays for one second.
    """
    pictures = [to_pil_image(frame.cpu()) for frame in frames]
    durations = [max(20, int(1000 * seconds / len(pictures)))] * len(pictures)  # ms
    if pause:
        durations[-1] = 1000
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def save_npy(batches: Iterable[Tensor], shape: Sequence[int], path: Path) -> None:
    """Write an array of `shape`, (N, C, H, W) float32, batch by batch.

    Not through a memory map, which a full disk kills without a word.
    """
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for images in batches:
            file.write(images.contiguous().numpy().astype("<f4", copy=False).data)
