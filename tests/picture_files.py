"""A small folder of pictures, for tests that need data and no network."""

from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image


def write(root: Path, num: int = 80, size: tuple[int, int] = (20, 16), classes: int = 2) -> list[str]:
    """Write PNG files, a folder for each class; return the Hydra overrides that point `data` to them."""
    draw = torch.Generator().manual_seed(0)
    for number in range(num):
        folder = root / f"class_{number % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(draw, size, 60 + 100 * (number % classes)).save(folder / f"{number:04d}.png")
    return [f"data.root={root}", f"data.reader.cache={root.parent}/{root.name}_cache"]


def picture(draw: torch.Generator, size: tuple[int, int], level: int) -> Image.Image:
    """Noise about a grey level; `size` is width and height."""
    return to_pil_image((level + torch.randint(60, (3, size[1], size[0]), generator=draw)).to(torch.uint8))
