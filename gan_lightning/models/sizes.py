"""Checks of widths and image sizes."""

from collections.abc import Sequence

SMALLEST = (4, 5, 6, 7)  # pixels


def smallest_size(image_shape: Sequence[int], model: str) -> int:
    """The size from which a network doubles up to the image: 7 for 28, 4 for 32 and 64.

    Args:
        model: the option's name, for the error.

    Raises:
        ValueError: if the image is not square, or its size is not 4, 5, 6 or 7 doubled.
    """
    _, height, width = image_shape
    size = height
    while size > SMALLEST[-1] and size % 2 == 0:
        size //= 2
    if height != width or size not in SMALLEST or size == height:
        raise ValueError(
            f"image_shape={list(image_shape)}: model={model} needs square images of 4, 5, 6 or 7 pixels doubled, such "
            "as 28, 32 or 64; resize the data with data.image_shape, or use model=mlp"
        )
    return size


def check_positive(**numbers: int) -> None:
    """Raises ValueError if one of these arguments of a network, by their names, is below 1."""
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be 1 or more")
