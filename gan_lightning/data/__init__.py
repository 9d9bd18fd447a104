"""Data sets as one uint8 tensor each."""

from gan_lightning.data.module import ImageDataModule

__all__ = ["ImageDataModule"]
