"""Train a GAN: config -> GAN, data, Trainer -> fit -> how it ended."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gan_lightning.cli.checks import check
from gan_lightning.cli.command import command
from gan_lightning.cli.processes import rank
from gan_lightning.files import shorten

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from omegaconf import DictConfig

    from gan_lightning.gan import GAN

log = logging.getLogger(__name__)

# What a run loses without a part of conf/control/; a warning says so.
MISSED = {
    "interrupt": "Ctrl-C ends the run at once, and what was not saved is lost",
    "same_buffers": "devices with BatchNorm of their own draw different samples",
    "last_scores": "the end of the run has scores only where an evaluation was due",
    "record": "there is no metrics.json, which resume, sweeps and the leaderboard read",
}


@command("train")
def main(config: DictConfig) -> None:
    from hydra.utils import instantiate

    from gan_lightning.callbacks.record import ending, summary
    from gan_lightning.runs.resume import restoring
    from gan_lightning.runs.state import alone_in

    check(config)
    for name, loss in MISSED.items():
        if not config.control.get(name):
            log.warning("control.%s is left out: %s", name, loss)
    gan = build_gan(config)
    resumed_at = check_resume(config, gan) if config.resume else 0  # iterations
    data = instantiate(config.data)
    trainer = build_trainer(config, resumed_at=resumed_at)
    with alone_in(Path(trainer.default_root_dir)) if rank() == 0 else nullcontext():  # rank 0 locks the folder for all
        try:
            with restoring(shorten(config.resume), trainer, resumed_at) if config.resume else nullcontext():
                trainer.fit(gan, data, ckpt_path=config.resume)
        except SystemExit:  # what Lightning makes of a Ctrl-C that Interrupt has not seen, or of the second one
            raise KeyboardInterrupt from None
        if trainer.is_global_zero:
            log.info("\n%s", summary(trainer))
    if ending(trainer) == "stopped" and trainer.is_global_zero:  # Lightning kills rank 0 if another one ends badly
        raise KeyboardInterrupt


def check_resume(config: DictConfig, gan: GAN) -> int:
    """How many iterations the run to resume has done.

    Raises:
        ValueError: if its checkpoint is damaged or of another run, or the run is at its end.
    """
    from gan_lightning.runs.checkpoint import read_checkpoint
    from gan_lightning.runs.resume import check_end, check_resumable

    checkpoint = read_checkpoint(config.resume, "resume")
    iterations = check_resumable(checkpoint, gan, shorten(config.resume))
    check_end(config, checkpoint)
    return iterations


def build_gan(config: DictConfig) -> GAN:
    """The networks and what trains them: the block `gan`."""
    import torch
    from hydra.utils import instantiate

    from gan_lightning.noise import derive_seed

    torch.manual_seed(derive_seed(config.seed))  # initial weights
    gan = instantiate(config.gan)
    gan.networks = plain(config.model)  # for checkpoints
    return cast("GAN", gan)


def build_trainer(config: DictConfig, *callbacks: Callback, resumed_at: int = 0) -> Trainer:
    """Lightning's Trainer with the callbacks and loggers of the config, and `callbacks` besides.

    Args:
        resumed_at: iterations done before, of a run that is resumed.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import Checkpoint

    from gan_lightning.callbacks.checks import check_callbacks
    from gan_lightning.callbacks.console import ProgressBar
    from gan_lightning.devices import together
    from gan_lightning.runs.checkpoint import AtomicCheckpointIO

    devices = together(config, is_job=HydraConfig.get().mode == RunMode.MULTIRUN)
    found = {
        f"{block}.{name}": callback
        for block in ("control", "callbacks")
        for name, callback in instantiate(config[block]).items()
        if callback and (config.trainer.enable_progress_bar or not isinstance(callback, ProgressBar))
    }
    check_callbacks(found, has_scores=bool(config.metrics), has_loggers=bool(config.logger))
    return cast(
        "Trainer",
        instantiate(
            config.trainer,
            **devices | {"plugins": [AtomicCheckpointIO(), *devices["plugins"]]},
            # A callback that waits for the next validation acts at each epoch's end instead.
            **({} if config.metrics else {"limit_val_batches": 0, "check_val_every_n_epoch": 1}),
            logger=build_loggers(config, resumed_at),
            callbacks=[*found.values(), *callbacks],
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in found.values()),
        ),
    )


def build_loggers(config: DictConfig, resumed_at: int) -> list[Any]:
    """The loggers of the config. One that takes a folder and names none writes into that of the run."""
    from hydra.utils import instantiate

    from gan_lightning.cli.errors import arguments
    from gan_lightning.runs.folder import choices
    from gan_lightning.runs.identity import flatten, hyperparameters
    from gan_lightning.trackers.tracker import Tracker

    loggers, settings = [], flatten(plain(config))
    for block in config.logger.values():
        if not block:
            continue
        takes_folder = "save_dir" not in block and "save_dir" in arguments(block.get("_target_", ""))
        folder = {"save_dir": config.trainer.default_root_dir} if takes_folder else {}
        loggers.append(logger := instantiate(block, **folder))
        if isinstance(logger, Tracker):
            logger.describe(settings, hyperparameters(choices(), settings))
            if resumed_at:
                logger.go_on(resumed_at)
    return loggers


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as dicts and lists, every reference in it resolved."""
    from omegaconf import OmegaConf

    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


if __name__ == "__main__":
    sys.exit(main())
