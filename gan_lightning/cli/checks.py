"""What can be said of a training's config before anything is built."""

import logging

from omegaconf import DictConfig, OmegaConf

from gan_lightning.cli.errors import explain_clipping
from gan_lightning.files import conf_dir, shorten
from gan_lightning.runs.current import choices, overrides
from gan_lightning.runs.resume import SCHEDULES, timer_of

log = logging.getLogger(__name__)

NOT_OF_THE_TRAINER = {  # Lightning's own arguments that a run decides by another key
    "callbacks": "use +callbacks.<name>={_target_: …}",
    "logger": "use logger=none, or +logger.<name>={_target_: …}",
    "enable_checkpointing": "use ~callbacks.checkpoint for a run without checkpoints",
    "plugins": "use trainer.precision or trainer.strategy",
    "overfit_batches": "every epoch has other batches; put the few images into a folder: data=image_folder",
    "accumulate_grad_batches": "use a larger data.batch_size",
}


def check(config: DictConfig) -> None:
    """Raises ValueError, with its key, for a setting that cannot be used."""
    if not isinstance(config.seed, int) or config.seed < 0:
        raise ValueError(f"seed={config.seed} must be a whole number, 0 or more")
    if config.latent_dim < 1:
        raise ValueError(f"latent_dim={config.latent_dim} must be 1 or more")
    check_schedules(config)
    shape = config.data.get("image_shape", [1, 28, 28])
    if isinstance(shape, int | str) or len(shape) != 3:
        raise ValueError(f"data.image_shape={shape} must be channels, height, width, such as [1,28,28]")
    for group in "conditioning", "penalty", "constraint", "augment":
        part = config.get(group)
        if part and "_target_" not in part:
            raise ValueError(f"{group}={{{', '.join(part)}: …}}: {group}=none has no settings; choose a {group}")
    check_trainer(config)
    if not config.metrics:
        tell_unscored()


def check_schedules(config: DictConfig) -> None:
    """Raises ValueError if the name of a schedule stands where one inside of another group belongs."""
    for key in SCHEDULES:
        if isinstance(name := OmegaConf.select(config, key), str):
            raise ValueError(
                f"{key}={name}: the option of a group inside of another is typed as +schedule@{key}={name}"
            )


def check_trainer(config: DictConfig) -> None:
    """Raises ValueError, with its key, for a setting of the Trainer that cannot be used."""
    if "16" in str(config.trainer.precision).replace("bf16", ""):
        raise ValueError(
            f"trainer.precision={config.trainer.precision} is not supported: its loss scaling knows one optimizer; "
            "use bf16-mixed or 32-true"
        )
    for key in "max_epochs", "max_steps", "limit_train_batches":
        if config.trainer.get(key) == 0:
            raise ValueError(f"trainer.{key}={config.trainer[key]}: there is nothing to train; leave it out, or try 1")
    if (timer := timer_of(config)) and timer.time_remaining() <= 0:
        raise ValueError(f"trainer.max_time={config.trainer.max_time}: there is no time to train; leave it out")
    every = config.trainer.check_val_every_n_epoch
    if every is not None and not (isinstance(every, int) and every >= 1):
        raise ValueError(
            f"trainer.check_val_every_n_epoch={every} must be 1 or more; metrics=none trains without scores"
        )
    if config.trainer.get("gradient_clip_val"):
        raise ValueError(explain_clipping(config.trainer.gradient_clip_val))
    for key, instead in NOT_OF_THE_TRAINER.items():
        if key in config.trainer:
            raise ValueError(f"trainer.{key} has no effect; {instead}")


def tell_unscored() -> None:
    """Say why a run has no scores, if nobody has typed that."""
    name = choices().get("data")
    if name and not any(word.startswith("metrics=") for word in overrides()):
        log.info(
            "no scores: data=%s or the recipe chooses metrics=none; metrics=judge asks the judge, of which %s.yaml "
            "says more", name, shorten(conf_dir() / "data" / name),
        )  # fmt: skip
