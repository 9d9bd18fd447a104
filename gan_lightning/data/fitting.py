"""A picture of any kind -> one image of the data set's shape."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

MODES = {1: "L", 3: "RGB"}  # Pillow's names, by the number of channels


def check_channels(image_shape: Sequence[int]) -> None:
    """Raises ValueError if pictures cannot have this shape."""
    if image_shape[0] not in MODES:
        raise ValueError(
            f"image_shape={list(image_shape)}: pictures have 1 channel (grey) or 3 (colour); "
            f"try data.image_shape=[3,{image_shape[1]},{image_shape[2]}]"
        )


class Unfit(ValueError):
    """A picture that is whole, but cannot become an image. The message is for people."""


def to_8_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits, or of 32 bits with values of 8 or 16. The transparent grey becomes white."""
    pixels = np.asarray(picture).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise Unfit(f"pixels are whole numbers from {pixels.min()} to {pixels.max()}, of no known range")
    clear = pixels == picture.info.get("transparency", -1)
    holds_8_bits = picture.mode == "I" and pixels.max() <= 255
    pixels = pixels if holds_8_bits else pixels // 257
    return Image.fromarray(np.where(clear, 255, pixels).astype(np.uint8))


def fit(picture: Image.Image, image_shape: Sequence[int]) -> Tensor:
    """Turn a picture upright, crop its centre to the shape's proportions, and resize it with an antialiasing filter.

    The short side keeps its full length. Transparent parts become white; 16 bits become 8; colours follow C.

    Args:
        image_shape: C, H, W; C is 1 or 3.

    Returns:
        (C, H, W) uint8.

    Raises:
        Exception: of many kinds, if Pillow finds the file damaged.
    """
    channels, height, width = image_shape
    picture = ImageOps.exif_transpose(picture)  # as the camera was held
    if picture.mode == "F":
        raise Unfit("pixels are floating-point numbers, of no known range")
    if picture.mode.startswith("I"):  # Pillow would cut off what is above 255
        picture = to_8_bits(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode != MODES[channels]:
        picture = picture.convert(MODES[channels])
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture))  # (H, W) or (H, W, C)
    return pixels.view(height, width, channels).permute(2, 0, 1)
