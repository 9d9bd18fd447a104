"""`resume=<checkpoint or run folder>`: continue a run in its folder, with its config, after its last saved iteration.

First the command line is rewritten, before Hydra reads it, so that every process of the run starts from the saved
config. Then the process that trains checks the checkpoint, and that the run has something left to do.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from gan_lightning.files import PACKAGE, groups, python, shorten, written_whole
from gan_lightning.runs.folder import chosen_options, find_checkpoint, run_config, run_folder, typed_overrides
from gan_lightning.runs.identity import role_of
from gan_lightning.runs.place import epochs_done, iterations_done
from gan_lightning.runs.state import run_state
from gan_lightning.runs.typed import as_argument, quote
from gan_lightning.terminal import one_line

if TYPE_CHECKING:
    from lightning import Trainer
    from torch.optim import Optimizer

    from gan_lightning.gan import GAN

MAY_CHANGE = ("observes", "scores", "place")
LENGTH = ("trainer.max_epochs", "trainer.max_steps")  # of a run: a schedule may depend on it
SCHEDULES = ("schedule", "penalty.schedule", "optimizer.beta2_schedule")


def resumed_overrides(overrides: list[str]) -> tuple[Path, list[str]] | None:
    """The folder of the config to start from, and the overrides for it; None without a `resume=`.

    Raises:
        ValueError: if there is no checkpoint, or an override would change what the run computes.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    wanted = [override.value() for override in parsed if override.key_or_group == "resume"]
    if not wanted or wanted[-1] is None:
        return None
    typed = f"resume={wanted[-1]}"
    if any(override.is_sweep_override() for override in parsed):
        raise ValueError(f"{typed}: a comma separates several runs; quote a value that has one: \"key='a,b'\"")
    file = find_checkpoint(str(wanted[-1]), key="resume").resolve()
    run, config = run_folder(file), run_config(file, key="resume")
    chosen, _ = chosen_options(run), typed_overrides(run)  # read before anything is written: a broken file is refused
    kept, refused = [], []
    for override in parsed:
        key, text = override.key_or_group, str(override.input_line)
        if key == "resume":
            continue
        if key in groups():
            if chosen.get(key) != override.value():
                watching = role_of(key) != "trains"
                refused.append(f"{text} (single keys of it may change: {key}.<key>=…)" if watching else text)
        elif role_of(key) in MAY_CHANGE:
            kept.append(text)
        elif override.is_delete() or not _is_same(config, key, override.value()):
            may_move = key not in LENGTH or not has_end_in_schedule(config)
            (kept if role_of(key) == "ends" and may_move else refused).append(text)
    for override in parsed:
        is_folder = override.key_or_group in ("hydra.run.dir", "trainer.default_root_dir")
        if is_folder and Path(str(override.value())).resolve() != run:
            way_out = f"leave out {override.input_line}, or copy the run's folder and resume the copy"
            raise ValueError(f"{typed}: a run continues in its own folder; {way_out}")
    if refused:
        way_out = "leave it out, or start a new one without resume="
        raise ValueError(f"{typed}: {', '.join(refused)} would make it another run; {way_out}")
    place = [f"hydra.run.dir={quote(run)}", "hydra.output_subdir=null", f"++resume={quote(file)}"]
    return run / ".hydra", [*kept, *place]


def _is_same(config: DictConfig, key: str, value: Any) -> bool:
    old = OmegaConf.select(config, key)
    return bool((OmegaConf.to_container(old) if OmegaConf.is_config(old) else old) == value)


# --- In the process that trains ----------------------------------------------------------------------------


class AtEnd(ValueError):
    """A run that is to be resumed has nothing left to do."""

    exit_code = 3  # of the process: a sweep then starts the job anew, as it was killed before it had its scores


def check_end(config: DictConfig, checkpoint: dict[str, Any]) -> None:
    """Raises AtEnd if a run to be resumed has nothing left to do."""
    from lightning.pytorch.callbacks import Timer

    path, trainer = shorten(config.resume), config.trainer
    for key, done in zip(LENGTH, (epochs_done(checkpoint), iterations_done(checkpoint)), strict=True):
        end = OmegaConf.select(config, key)
        if end not in (-1, None) and done >= end:
            words = f"resume={as_argument(path)} {key}={done + max(1, done // 5)}"
            further = f"further: {python()} -m gan_lightning {words}"
            way_out = "its schedule has reached its end" if has_end_in_schedule(config) else further
            raise AtEnd(f"resume={path}: the run is at its end, {key}={end}; {way_out}")
    limit, state = trainer.get("max_time"), checkpoint["callbacks"].get("Timer")
    if limit and state:
        timer = Timer(OmegaConf.to_container(limit) if OmegaConf.is_config(limit) else limit)  # as Lightning's Trainer
        timer.load_state_dict(state)
        if timer.time_remaining() <= 0:
            way_out = "further: a longer one, which counts from the start of the run"
            raise AtEnd(f"resume={path}: the run is at its end, trainer.max_time={limit}; {way_out}")


def has_end_in_schedule(config: DictConfig) -> bool:
    """Does a schedule depend on the length of the run?"""
    schedules = filter(None, (OmegaConf.select(config, key) for key in SCHEDULES))
    return any(not one._target_.endswith("Constant") and one.get("until") is None for one in schedules)


def save_end(checkpoint: Path, ends: dict[str, Any]) -> None:
    """Write max_epochs, max_steps, max_time of a resumed run to the config in its folder, for the next resume.

    Args:
        checkpoint: that it goes on from.
    """
    file = run_folder(checkpoint) / ".hydra" / "config.yaml"
    if not file.is_file():  # resumed from Python, in a folder that no command has made
        return
    saved = OmegaConf.load(file)
    for key, end in ends.items():
        if end != OmegaConf.select(saved, f"trainer.{key}"):
            OmegaConf.update(saved, f"trainer.{key}", end, force_add=True)
    with written_whole(file) as part:
        OmegaConf.save(saved, part)


def scores_until(folder: Path, iterations: int) -> dict[str, Any]:
    """The scores in the metrics.json of a run, if they are no later than the iteration that it goes on from."""
    metrics = run_state(folder).metrics
    about = metrics.get("scored")
    if not isinstance(about, dict) or not isinstance(at := about.get("iteration"), int) or at > iterations:
        return {}
    return {"scored": about} | {name: value for name, value in metrics.items() if name.startswith("metrics/")}


def check_resumable(checkpoint: dict[str, Any], gan: GAN, path: str) -> int:
    """The iterations that a run has done. `gan` is as its config builds it.

    Raises:
        ValueError: for damage that would kill the process, or let it train on with wrong numbers. `restoring` sees the
            rest.
    """
    from gan_lightning.runs.checkpoint import check_weights

    try:
        epochs_done(checkpoint)
        checkpoint["callbacks"].get("Timer")  # which `check_end` reads
        check_weights(gan, checkpoint["state_dict"])
        saved, optimizers = checkpoint["optimizer_states"], gan.configure_optimizers()
        if len(saved) != len(optimizers):
            raise ValueError(f"it holds the states of {len(saved)} optimizers, not of {len(optimizers)}")
        for state, optimizer in zip(saved, optimizers, strict=True):
            _check_optimizer(state, optimizer)
        return iterations_done(checkpoint)
    except Exception as error:
        raise _refusal(path, error) from error


def _check_optimizer(saved: dict[str, Any], optimizer: Optimizer) -> None:
    """Raises ValueError if the saved state of an optimizer is of other weights, or would crash a fused kernel."""
    from torch import Tensor

    weights = dict(enumerate(weight for group in optimizer.param_groups for weight in group["params"]))
    groups = optimizer.state_dict()["param_groups"]
    if len(groups) != len(saved["param_groups"]) or not saved["state"].keys() <= weights.keys():
        raise ValueError("it holds the optimizer state of other weights")
    for mine, theirs in zip(groups, saved["param_groups"], strict=True):  # PyTorch takes these from the file unchecked
        for key in {"params", "initial_lr", "initial_betas", "fused"} & mine.keys():
            if theirs[key] != mine[key]:
                raise ValueError(f"{key} of an optimizer is {one_line(theirs[key], 60)}, not {one_line(mine[key], 60)}")
    if not any(group.get("fused") for group in groups):
        return
    tensors = ((number, *item) for number, state in saved["state"].items() for item in state.items())
    for number, name, value in tensors:
        shape = () if name == "step" else tuple(weights[number].shape)
        # A fused kernel reads beyond the end of a tensor that is too short; others raise an error.
        if isinstance(value, Tensor) and not (value.is_floating_point() and value.shape == shape):
            found = f"{value.dtype} {tuple(value.shape)}"
            raise ValueError(f"{one_line(name, 60)} of a weight is {found} in it, not floats {shape}")


@contextmanager
def restoring(path: str, trainer: Trainer, iterations: int) -> Iterator[None]:
    """Around the training that continues from `path`: what Lightning and PyTorch cannot restore is said in one line.

    Errors of our own and of the system stay as they are, and so does any error after the next iteration.
    """
    from torch import OutOfMemoryError

    try:
        yield
    except Exception as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        is_ours = isinstance(error, ValueError | FloatingPointError) and raised_in.is_relative_to(PACKAGE)
        if is_ours or isinstance(error, OSError | OutOfMemoryError) or trainer.global_step > iterations + 1:
            raise
        raise _refusal(path, error) from error


def _refusal(path: str, error: Exception) -> ValueError:
    reason = one_line(error, 400) or type(error).__name__
    if isinstance(error, KeyError) and " " not in reason:
        reason = f"it lacks {one_line(error.args[0], 60)}"
    return ValueError(f"resume={path} cannot be resumed: {reason}")
