"""Train a GAN: config -> data, GAN, Trainer -> fit -> the run's score."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gan_lightning.cli import command
from gan_lightning.paths import shorten

if TYPE_CHECKING:
    from lightning import Trainer
    from omegaconf import DictConfig

    from gan_lightning.gan import GAN

log = logging.getLogger(__name__)


@command("train")
def main(config: DictConfig) -> None:
    from hydra.utils import instantiate

    from gan_lightning.callbacks.interrupt import Interrupt
    from gan_lightning.checkpoint import read_checkpoint

    earlier = read_checkpoint(config.resume, "resume")["global_step"] if config.resume else 0  # iterations
    gan = build_gan(config)
    data = instantiate(config.data)
    trainer = build_trainer(config, interrupt := Interrupt(), earlier=earlier)
    started = time.perf_counter()
    trainer.fit(gan, data, ckpt_path=config.resume)
    seconds = time.perf_counter() - started
    if config.resume and trainer.global_step == earlier and not interrupt.caught:
        raise ValueError(
            f"resume={shorten(config.resume)}: the run has done all of its {earlier} iterations; "
            f"for more of them add trainer.max_epochs={config.trainer.max_epochs + 10}"
        )
    if trainer.is_global_zero:
        report(config, trainer, seconds, images=(trainer.global_step - earlier) * data.batch_size)
    if interrupt.caught and trainer.is_global_zero:  # Lightning kills rank 0 when another one ends with an error
        raise KeyboardInterrupt


def build_gan(config: DictConfig) -> GAN:
    """The networks and what trains them, from the root of a training config."""
    import torch
    from hydra.utils import instantiate

    from gan_lightning.gan import GAN
    from gan_lightning.randomness import derive_seed

    if not isinstance(config.seed, int) or config.seed < 0:
        raise ValueError(f"seed={config.seed} must be a whole number, 0 or more")
    torch.manual_seed(derive_seed(config.seed))  # initial weights
    return GAN(
        generator=instantiate(config.model.generator),
        discriminator=instantiate(config.model.discriminator),
        loss=instantiate(config.loss),
        penalty=instantiate(config.penalty) or None,  # penalty=none is an empty file
        ema=instantiate(config.ema),
        generator_optimizer=instantiate(config.optimizer.generator),
        discriminator_optimizer=instantiate(config.optimizer.discriminator),
        schedule=instantiate(config.schedule),
        max_gradient_norm=config.max_gradient_norm,
        latent_dim=config.latent_dim,
        n_critic=config.n_critic,
        reuse_fake=config.reuse_fake,
        seed=config.seed,
        networks=plain(config.model),
    )


def build_trainer(config: DictConfig, *callbacks: Any, earlier: int = 0) -> Trainer:
    """Lightning's Trainer with the configured loggers and callbacks, and `callbacks` beside them.

    Args:
        earlier: iterations that the run has done already, where it is resumed.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import Checkpoint

    from gan_lightning.callbacks.alarms import Alarms
    from gan_lightning.callbacks.console import ProgressBar
    from gan_lightning.callbacks.evaluation import Evaluation
    from gan_lightning.callbacks.tensorboard import Dashboard
    from gan_lightning.checkpoint import AtomicCheckpointIO
    from gan_lightning.devices import SyncBatchNorm
    from gan_lightning.runs import chosen_options, run_folder

    if str(config.trainer.precision).startswith("16"):
        raise ValueError(
            f"trainer.precision={config.trainer.precision} is not supported: its loss scaling knows one optimizer; "
            "use bf16-mixed or 32-true"
        )
    if config.trainer.get("gradient_clip_val"):
        raise ValueError(
            f"trainer.gradient_clip_val={config.trainer.gradient_clip_val}: Lightning cannot clip for two optimizers; "
            f"use max_gradient_norm={config.trainer.gradient_clip_val}"
        )
    plugins: list[Any] = [AtomicCheckpointIO()]
    settings: dict[str, Any] = {"plugins": plugins}
    several = config.trainer.devices not in (1, "1") or config.trainer.num_nodes > 1
    if several and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError(
            f"trainer.devices={config.trainer.devices} does not work with -m, where each device would start "
            "the whole grid again; use trainer.devices=1, or start one run at a time"
        )
    if several and config.trainer.strategy == "auto":
        settings["strategy"] = "ddp_find_unused_parameters_true"  # either network is unused in the other's turn
    if several and config.trainer.sync_batchnorm:
        plugins.append(SyncBatchNorm())
    settings["sync_batchnorm"] = False  # Lightning's own
    watchers = [watcher for watcher in instantiate(config.callbacks).values() if watcher]
    if not config.trainer.enable_progress_bar:
        watchers = [watcher for watcher in watchers if not isinstance(watcher, ProgressBar)]
    settings["enable_checkpointing"] = any(isinstance(watcher, Checkpoint) for watcher in watchers)
    choices = chosen_options(run_folder(Path(config.resume))) if config.resume else HydraConfig.get().runtime.choices
    watchers.append(Dashboard(plain(config), dict(choices)))
    if config.metrics:
        evaluation = Evaluation(instantiate(config.metrics.extractor), config.metrics.cache)
        watchers += [evaluation, Alarms()]
    else:
        settings["limit_val_batches"] = 0
        warnings.filterwarnings("ignore", "You defined a `validation_step` but have no")  # metrics=none says so
    logger = [
        instantiate(block, **keep_earlier(block["_target_"], earlier) if earlier else {})
        for block in plain(config.logger).values()
    ]
    return instantiate(config.trainer, **settings, logger=logger, callbacks=[*watchers, *callbacks])


def keep_earlier(logger: str, earlier: int) -> dict[str, Any]:
    """What a logger must be told so that the curves of a resumed run go on: nothing lost, no step twice."""
    if logger.endswith("TensorBoardLogger"):
        return {"purge_step": earlier + 1}  # what was logged after the checkpoint is done again
    if logger.endswith("CSVLogger"):
        return {"version": f"from_iteration_{earlier}"}  # it would delete the file of that name
    return {}


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as dicts and lists, every reference in it resolved."""
    from omegaconf import OmegaConf

    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def report(config: DictConfig, trainer: Trainer, seconds: float, images: int) -> None:
    """Write metrics.json, and say where everything is and what to do next.

    Args:
        seconds, images: since the start of this process; a resumed run has more of both behind it.
    """
    from gan_lightning.callbacks.console import format_seconds
    from gan_lightning.callbacks.scalars import final_scores

    scores = final_scores(trainer)
    earlier_seconds = getattr(trainer.checkpoint_callback, "earlier_seconds", 0.0)
    record = scores | {
        "iterations": trainer.global_step,
        "images": trainer.global_step * trainer.datamodule.batch_size,
        "seconds": round(earlier_seconds + seconds, 2),
        "images_per_second": round(images / seconds, 1),
        "seed": config.seed,
        "versions": versions(),
        "command": rerun_command(config),
    }
    folder = Path(trainer.default_root_dir)
    (folder / "metrics.json").write_text(json.dumps(record, indent=2) + "\n")

    name = shlex.quote(shorten(folder))
    duration, speed = format_seconds(seconds), f"{images / seconds:,.0f} images per second"
    lines = [
        f"{trainer.global_step:,} iterations in {duration}, {speed}",
        *(f"{tag:24} {value:.4f}" for tag, value in scores.items()),
        f"everything is in {name}",
        f"  pictures     {name}/samples/",
        f"  more images  python -m gan_lightning.sample ckpt={name}",
        "  curves       tensorboard --logdir outputs",
    ]
    log.info("\n%s", "\n".join(lines))


def versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    from importlib.metadata import version
    from platform import python_version

    packages = ("gan-lightning", "torch", "torchvision", "lightning", "hydra-core")
    return {"python": python_version(), **{package: version(package) for package in packages}}


def rerun_command(config: DictConfig) -> str:
    """The command that repeats this run, from its start and in a folder of its own."""
    from hydra.core.hydra_config import HydraConfig

    from gan_lightning.runs import run_folder, typed_overrides

    overrides = list(HydraConfig.get().overrides.task)
    if config.resume:
        of_resume = ("hydra", "resume=", "++resume=")
        overrides = [override for override in overrides if not override.startswith(of_resume)]
        overrides = typed_overrides(run_folder(Path(config.resume))) + overrides
    return shlex.join(["python", "-m", "gan_lightning", *overrides])


if __name__ == "__main__":
    sys.exit(main())
