"""Data sets as one uint8 tensor each."""

from gan_lightning.data.module import ImageDataModule
from gan_lightning.data.stacked import StackedDataModule

__all__ = ["ImageDataModule", "StackedDataModule"]
