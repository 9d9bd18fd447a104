"""What takes long to import before a training: loaded once for a sweep, in the process its jobs are forked from.

Importing uses no device and draws no random number, so that a job is as fresh as one started from a shell.
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
