"""Import once, for all jobs of a sweep, what takes long to import: in the process that the jobs are forked from.

The imports use no device and draw no random numbers, so that a job starts like one from a shell.
"""

from importlib import import_module

for name in (
    "lightning.pytorch",
    "torch.utils.tensorboard",
    "torchvision.utils",
    "gan_lightning.callbacks.alarms",
    "gan_lightning.callbacks.saving",
    "gan_lightning.callbacks.console",
    "gan_lightning.callbacks.evaluation",
    "gan_lightning.callbacks.pictures",
    "gan_lightning.callbacks.scalars",
    "gan_lightning.data.module",
    "gan_lightning.gan",
    "gan_lightning.models.dcgan",
    "gan_lightning.models.mlp",
):
    import_module(name)
