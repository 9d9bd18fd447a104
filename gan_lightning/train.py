"""Train a GAN: config -> data, GAN, Trainer -> fit -> the run's score."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gan_lightning.cli.command import command
from gan_lightning.cli.processes import rank
from gan_lightning.files import conf_dir, python, shorten
from gan_lightning.runs.typed import as_argument

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning import Callback, LightningModule, Trainer
    from omegaconf import DictConfig

    from gan_lightning.gan import GAN

NOT_OF_THE_TRAINER = {  # Lightning's own arguments that a run decides by another key
    "callbacks": "use +callbacks.<name>={_target_: …}",
    "logger": "use logger=none, or +logger.<name>={_target_: …}",
    "enable_checkpointing": "use ~callbacks.checkpoint for a run without checkpoints",
    "plugins": "use trainer.precision or trainer.strategy",
    "overfit_batches": "every epoch has other batches; put the few images into a folder: data=image_folder",
    "accumulate_grad_batches": "use a larger data.batch_size",
}

log = logging.getLogger(__name__)


@command("train")
def main(config: DictConfig) -> None:
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import LambdaCallback

    from gan_lightning.callbacks.interrupt import Interrupt
    from gan_lightning.runs.checkpoint import read_checkpoint
    from gan_lightning.runs.lock import alone_in
    from gan_lightning.runs.resume import check_end, check_resumable, restoring, scores_until

    gan, earlier, scored = build_gan(config), 0, {}
    folder = Path(config.trainer.default_root_dir)
    if config.resume:
        checkpoint = read_checkpoint(config.resume, "resume")
        earlier = check_resumable(checkpoint, gan, shorten(config.resume))
        check_end(config, checkpoint)
        scored = scores_until(folder, earlier)
    data = instantiate(config.data)
    started = time.perf_counter()
    note = partial(write_record, config, started=started, earlier=earlier, scored=scored)
    callbacks: list[Callback] = [interrupt := Interrupt()]
    if config.resume:
        callbacks.append(LambdaCallback(on_train_batch_end=partial(forget_end, config, earlier, note)))
    # Whatever ends the run, a kill too, it keeps the scores that it had.
    callbacks.append(LambdaCallback(on_validation_end=lambda trainer, _: note(trainer, "running")))
    trainer = build_trainer(config, *callbacks, earlier=earlier)
    with alone_in(folder) if rank() == 0 else nullcontext():  # the first process holds the lock for all
        try:
            with restoring(shorten(config.resume), trainer, earlier) if config.resume else nullcontext():
                trainer.fit(gan, data, ckpt_path=config.resume)
        except SystemExit:  # what Lightning makes of a Ctrl-C that Interrupt has not seen, or of the second one
            raise KeyboardInterrupt from None
        if trainer.is_global_zero:
            state = "stopped" if interrupt.caught else "pruned" if is_pruned(trainer) else "done"
            report(config, trainer, note(trainer, state), earlier)
    if interrupt.caught and trainer.is_global_zero:  # Lightning kills rank 0 when another one ends with an error
        raise KeyboardInterrupt


def forget_end(
    config: DictConfig, earlier: int, note: Callable[..., Any], trainer: Trainer, gan: LightningModule, *_: Any
) -> None:
    """After its first iteration, when it cannot be refused any more, a resumed run forgets its earlier end."""
    from gan_lightning.runs.resume import save_end

    if gan.global_step == earlier + 1:
        if trainer.is_global_zero:
            save_end(config)
        note(trainer, "running")


def build_gan(config: DictConfig) -> GAN:
    """The networks and what trains them, from the root of a training config."""
    import torch
    from hydra.utils import instantiate

    from gan_lightning.gan import GAN
    from gan_lightning.noise import derive_seed

    if not isinstance(config.seed, int) or config.seed < 0:
        raise ValueError(f"seed={config.seed} must be a whole number, 0 or more")
    if config.latent_dim < 1:
        raise ValueError(f"latent_dim={config.latent_dim} must be 1 or more")
    check_schedules(config)
    shape = config.data.get("image_shape", [1, 28, 28])
    if isinstance(shape, int | str) or len(shape) != 3:
        raise ValueError(f"data.image_shape={shape} must be channels, height, width, such as [1,28,28]")
    torch.manual_seed(derive_seed(config.seed))  # initial weights
    optimizers = instantiate(config.optimizer)
    return GAN(
        generator=instantiate(config.model.generator),
        discriminator=instantiate(config.model.discriminator),
        loss=instantiate(config.loss),
        conditioning=build_part(config, "conditioning"),
        penalty=build_part(config, "penalty"),
        constraint=build_part(config, "constraint"),
        augment=build_part(config, "augment"),
        ema=instantiate(config.ema),
        generator_optimizer=optimizers.generator,
        discriminator_optimizer=optimizers.discriminator,
        schedule=instantiate(config.schedule),
        beta2_schedule=optimizers.get("beta2_schedule"),
        max_gradient_norm=config.max_gradient_norm,
        latent_dim=config.latent_dim,
        n_critic=config.n_critic,
        reuse_fake=config.reuse_fake,
        seed=config.seed,
        networks=plain(config.model),
    )


def check_schedules(config: DictConfig) -> None:
    """Raises ValueError if the name of a schedule stands where one inside of another group belongs."""
    from omegaconf import OmegaConf

    from gan_lightning.runs.resume import SCHEDULES

    for key in SCHEDULES:
        if isinstance(name := OmegaConf.select(config, key), str):
            raise ValueError(
                f"{key}={name}: the option of a group inside of another is typed as +schedule@{key}={name}"
            )


def build_part(config: DictConfig, group: str) -> Any:
    """What the option of a group stands for; None for `none`, whose file is empty.

    Raises:
        ValueError: if `none` is given a setting, which would be ignored.
    """
    from hydra.utils import instantiate

    part = config.get(group)
    if part and "_target_" not in part:
        raise ValueError(f"{group}={{{', '.join(part)}: …}}: {group}=none has no settings; choose a {group}")
    return instantiate(part) or None


def build_trainer(config: DictConfig, *callbacks: Any, earlier: int = 0) -> Trainer:
    """Lightning's Trainer with the configured loggers and callbacks, and `callbacks` beside them.

    Args:
        earlier: iterations that the run has done already, where it is resumed.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    from gan_lightning.callbacks.console import ProgressBar
    from gan_lightning.callbacks.cuda_graph import CudaGraph
    from gan_lightning.callbacks.dashboard import Dashboard
    from gan_lightning.callbacks.evaluation import Evaluation
    from gan_lightning.devices import STRATEGY, SameBuffers, SyncBatchNorm, check_processes, count_devices
    from gan_lightning.runs.checkpoint import AtomicCheckpointIO

    check_trainer(config)
    devices = count_devices(config)
    check_processes(config, devices)
    # On a cluster's login node, and on every machine where it is installed.
    warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # it saves from within a signal's handler, mid-iteration
    settings: dict[str, Any] = {"plugins": plugins}
    several = devices * config.trainer.num_nodes > 1
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN  # not so in a process of its own, hydra/launcher=process
    if several and in_sweep and not SLURMEnvironment.detect():
        raise ValueError(
            f"trainer.devices={devices}: with this hydra/launcher each device would start the whole "
            "sweep again; use hydra/launcher=process"
        )
    if several and config.trainer.strategy == "auto":
        settings["strategy"] = STRATEGY
    if several and config.trainer.sync_batchnorm:
        plugins.append(SyncBatchNorm())
    settings["sync_batchnorm"] = False  # Lightning's own
    watching = {name: watcher for name, watcher in instantiate(config.callbacks).items() if watcher}
    check_watchers(config, watching)
    watchers = list(watching.values())
    if not config.trainer.enable_progress_bar:
        watchers = [watcher for watcher in watchers if not isinstance(watcher, ProgressBar)]
    settings["enable_checkpointing"] = any(isinstance(watcher, Checkpoint) for watcher in watchers)
    watchers.append(Dashboard(plain(config), choices(config)))
    if several:
        watchers.append(SameBuffers())
    if config.metrics:
        evaluation = Evaluation(instantiate(config.metrics.extractor), config.metrics.cache)
        watchers.insert(0, evaluation)  # before the alarms, which read its scores
    else:
        # A callback that waits for the next validation acts at each epoch's end instead.
        settings |= {"limit_val_batches": 0, "check_val_every_n_epoch": 1}
        warnings.filterwarnings("ignore", "You defined a `validation_step` but have no")  # metrics=none says so
        name, typed = choices(config).get("data"), overrides_of(config)
        if name and not any(override.startswith("metrics=") for override in typed):  # else nobody wonders why
            log.info(
                "no scores: data=%s or the recipe chooses metrics=none; metrics=judge asks the judge, of which %s.yaml "
                "says more", name, shorten(conf_dir() / "data" / name),
            )  # fmt: skip
    if config.cuda_graph:
        watchers.insert(0, CudaGraph())  # what it refuses, it refuses before real images are scored
    logger = [
        instantiate(
            inside(block, config.trainer.default_root_dir),
            **keep_earlier(block.get("_target_", ""), earlier) if earlier else {},
        )
        for block in plain(config.logger).values()
        if block
    ]
    return instantiate(config.trainer, **settings, logger=logger, callbacks=[*watchers, *callbacks])


def check_trainer(config: DictConfig) -> None:
    """Raises ValueError, with its key, for a setting of the Trainer that cannot be used."""
    from gan_lightning.cli.errors import explain_clipping
    from gan_lightning.runs.resume import build_timer

    if "16" in str(config.trainer.precision).replace("bf16", ""):
        raise ValueError(
            f"trainer.precision={config.trainer.precision} is not supported: its loss scaling knows one optimizer; "
            "use bf16-mixed or 32-true"
        )
    for key in "max_epochs", "max_steps", "limit_train_batches":
        if config.trainer.get(key) == 0:
            raise ValueError(f"trainer.{key}={config.trainer[key]}: there is nothing to train; leave it out, or try 1")
    if (timer := build_timer(config.trainer.get("max_time"))) and timer.time_remaining() <= 0:
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


def inside(block: dict[str, Any], folder: str) -> dict[str, Any]:
    """The block of a logger, which writes into the run's folder where the block does not say where."""
    from gan_lightning.cli.errors import arguments

    takes = "save_dir" in arguments(block.get("_target_", ""))
    return {"save_dir": folder, **block} if takes else block


def check_watchers(config: DictConfig, watchers: dict[str, Any]) -> None:
    """Raises ValueError, with its key, for a callback that this run can do nothing with."""
    from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, WeightAveraging
    from lightning.pytorch.callbacks import ProgressBar as AnyBar
    from lightning.pytorch.callbacks import StochasticWeightAveraging as Swa

    bars = [name for name, watcher in watchers.items() if isinstance(watcher, AnyBar)]
    if len(bars) > 1:
        raise ValueError(f"callbacks.{bars[-1]}: there is a progress bar already; add ~callbacks.{bars[0]}")
    for name, watcher in watchers.items():
        monitor = getattr(watcher, "monitor", None) if isinstance(watcher, EarlyStopping | ModelCheckpoint) else None
        if str(monitor).startswith("metrics/") and not config.metrics:
            raise ValueError(f"callbacks.{name}.monitor={monitor}: metrics=none has no scores; choose other metrics")
        if isinstance(watcher, LearningRateMonitor) and not config.logger:
            raise ValueError(f"callbacks.{name}: logger=none draws no curves; choose a logger, or leave it out")
        if isinstance(watcher, Swa | WeightAveraging):
            raise ValueError(f"callbacks.{name} averages the weights of one network alone; use ema")


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


def is_pruned(trainer: Trainer) -> bool:
    """Was the run a trial of a study that had it ended early?"""
    return any(getattr(callback, "pruned", False) for callback in trainer.callbacks)


def why_early(trainer: Trainer) -> str:
    """What ended a run before the end of its epochs or iterations; empty where nothing did."""
    from lightning.pytorch.callbacks import EarlyStopping, Timer

    iterations, epochs = trainer.global_step, trainer.max_epochs
    if iterations == trainer.max_steps or iterations == (epochs or -1) * trainer.num_training_batches:
        return ""
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping) and (told := callback.stopping_reason_message):
            return f"early stopping: {told.partition(' Signaling')[0]}"
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "trainer.max_time is over"
    return "a callback has asked for it"


def write_record(
    config: DictConfig, trainer: Trainer, state: str, *, started: float, earlier: int, scored: dict[str, Any]
) -> dict[str, Any]:
    """Write metrics.json, and return what it holds.

    Args:
        state: done | stopped | pruned | running.
        started: when this process began to train, by time.perf_counter.
        earlier: iterations done before this process resumed the run.
        scored: the scores from before that, kept until there are new ones.
    """
    from gan_lightning.callbacks.evaluation import Evaluation
    from gan_lightning.callbacks.scalars import final_scores
    from gan_lightning.files import written_whole
    from gan_lightning.runs.state import METRICS
    from gan_lightning.runs.typed import rerun_command

    scores, seconds = final_scores(trainer), time.perf_counter() - started
    if not trainer.is_global_zero or trainer.sanity_checking:
        return {}
    earlier_seconds = getattr(trainer.checkpoint_callback, "earlier_seconds", 0.0)
    batch_size = trainer.datamodule.batch_size
    images_per_second = (trainer.global_step - earlier) * batch_size / seconds
    evaluation = next((watcher for watcher in trainer.callbacks if isinstance(watcher, Evaluation)), None)
    record: dict[str, Any] = scored | scores
    if evaluation and evaluation.scores:
        record["scored"] = evaluation.about()
    record |= {
        "state": state,
        "iterations": trainer.global_step,
        "images": trainer.global_step * batch_size,
        "seconds": round(earlier_seconds + seconds, 2),
        "images_per_second": round(images_per_second, 1),
        "seed": config.seed,
        "versions": versions(),
        "command": rerun_command(overrides_of(config)),
    }
    folder = Path(trainer.default_root_dir)
    with written_whole(folder / METRICS) as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def report(config: DictConfig, trainer: Trainer, record: dict[str, Any], earlier: int) -> None:
    """Say how the run ended, where everything is and what to do next.

    Args:
        record: of metrics.json.
        earlier: iterations, of a resumed run.
    """
    from gan_lightning.terminal import format_seconds

    state, folder = record["state"], Path(trainer.default_root_dir)
    seconds = record["seconds"] - getattr(trainer.checkpoint_callback, "earlier_seconds", 0.0)
    name = as_argument(shorten(folder))
    below_outputs = folder.absolute().is_relative_to(Path("outputs").absolute())
    can_sample = (folder / "checkpoints" / "last.ckpt").is_file()  # not after fast_dev_run
    in_all = f" ({trainer.global_step:,} in all)" if earlier else ""
    lines = [
        f"{trainer.global_step - earlier:,} iterations in {format_seconds(seconds)}{in_all}, "
        f"{record['images_per_second']:,.0f} images per second",
        *([f"ended early: {reason}"] if state == "done" and (reason := why_early(trainer)) else []),
        *(f"{tag:24} {value:.4f}" for tag, value in record.items() if tag.startswith(("loss/", "metrics/"))),
        f"everything is in {name}",
        f"  pictures     {name}/samples/",
        *([f"  more images  {python()} -m gan_lightning.sample ckpt={name}"] if can_sample else []),
        f"  curves       {python()} -m tensorboard.main --logdir {'outputs' if below_outputs else name}",
    ]
    if state == "stopped":
        lines.append(f"  go on        {python()} -m gan_lightning resume={name}")
    log.info("\n%s", "\n".join(lines))


def versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    from importlib.metadata import version
    from platform import python_version

    from gan_lightning import __version__

    packages = {package: version(package) for package in ("torch", "torchvision", "lightning", "hydra-core")}
    return {"python": python_version(), "gan-lightning": __version__, **packages}


def saved_folder(config: DictConfig) -> Path | None:
    """The folder of the run whose saved config this process was started from; None where it was composed anew."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.get().output_subdir is not None:
        return None
    return Path(config.trainer.default_root_dir)


def choices(config: DictConfig) -> dict[str, str]:
    """The option taken from each config group."""
    from hydra.core.hydra_config import HydraConfig

    from gan_lightning.runs.folder import chosen_options

    folder = saved_folder(config)
    return (chosen_options(folder) if folder else {}) or dict(HydraConfig.get().runtime.choices)


def overrides_of(config: DictConfig) -> list[str]:
    """What was typed for this run, where it was started from its saved config too."""
    from hydra.core.hydra_config import HydraConfig

    from gan_lightning.runs.folder import typed_overrides

    overrides = list(HydraConfig.get().overrides.task)
    if folder := saved_folder(config):
        overrides = [override for override in overrides if not override.startswith(("hydra", "resume=", "++resume="))]
        overrides = typed_overrides(folder) + overrides
    return overrides


if __name__ == "__main__":
    sys.exit(main())
