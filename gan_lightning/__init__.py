"""Train and compare GANs on small images with PyTorch Lightning and Hydra.

    from gan_lightning import GAN, ImageDataModule, load_gan

Imported when first asked for: `python -m gan_lightning --help` has to answer at once, without torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "GAN": "gan_lightning.gan",
    "ImageDataModule": "gan_lightning.data.module",
    "load_gan": "gan_lightning.runs.checkpoint",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gan_lightning' has no attribute {name!r}")
