"""`resume=<checkpoint or run folder>` goes on with a run: in its folder, with its config, from between two iterations.

The command line is rewritten before Hydra reads it, so that every process of the run starts from the saved config.
"""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from gan_lightning.files import groups, python, shorten, written_whole
from gan_lightning.runs.folder import chosen_options, find_checkpoint, run_config, run_folder, typed_overrides
from gan_lightning.runs.identity import role_of
from gan_lightning.runs.place import epochs_done
from gan_lightning.runs.typed import as_argument, quote

MAY_CHANGE = ("observes", "scores", "place")
LENGTH = ("trainer.max_epochs", "trainer.max_steps")  # of a run: a schedule may depend on it
SCHEDULES = ("schedule", "penalty.schedule", "optimizer.beta2_schedule")


class AtEnd(ValueError):
    """A run that is to be resumed has no iteration left to do. A sweep knows it by the exit code of its job."""

    exit_code = 3


def resumed_overrides(overrides: list[str]) -> tuple[Path, list[str]] | None:
    """The folder of the config to start from, and the overrides for it; None where nothing is to be resumed.

    Raises:
        ValueError: if there is no checkpoint, or an override would make it another run.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    wanted = [override.value() for override in parsed if override.key_or_group == "resume"]
    if not wanted or wanted[-1] is None:
        return None
    if any(override.is_sweep_override() for override in parsed):
        raise ValueError(
            f"resume={wanted[-1]}: a comma stands for several runs; quote a value that has one: \"key='a,b'\""
        )
    file = find_checkpoint(str(wanted[-1]), key="resume").resolve()
    run, config = run_folder(file), run_config(file, key="resume")
    chosen, _ = chosen_options(run), typed_overrides(run)  # all that is read of its folder, before anything is written
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
    folders = ("hydra.run.dir", "trainer.default_root_dir")
    elsewhere = [o for o in parsed if o.key_or_group in folders and Path(str(o.value())).resolve() != run]
    if elsewhere:
        raise ValueError(
            f"resume={wanted[-1]}: a run goes on in its own folder; leave out {elsewhere[0].input_line}, "
            "or copy the run's folder and resume the copy"
        )
    if refused:
        raise ValueError(
            f"resume={wanted[-1]}: {', '.join(refused)} would make it another run; leave it out, "
            "or start a new one without resume="
        )
    place = [f"hydra.run.dir={quote(run)}", "hydra.output_subdir=null", f"++resume={quote(file)}"]
    return run / ".hydra", [*kept, *place]


def _is_same(config: DictConfig, key: str, value: Any) -> bool:
    old = OmegaConf.select(config, key, throw_on_missing=False)
    return bool(old == value) if not OmegaConf.is_config(old) else bool(OmegaConf.to_container(old) == value)


def has_end_in_schedule(config: DictConfig) -> bool:
    """Does a number in an iteration depend on how many there are to be?"""
    schedules = (OmegaConf.select(config, key) for key in SCHEDULES)
    return any(
        schedule and not schedule._target_.endswith("Constant") and schedule.get("until") is None
        for schedule in schedules
    )


def keep_end(checkpoint: Path, ends: dict[str, Any]) -> None:
    """Write the end of a resumed run to the config in its folder, for the next time that it is resumed.

    Args:
        checkpoint: that it goes on from.
        ends: max_epochs, max_steps, max_time.
    """
    file = run_folder(checkpoint) / ".hydra" / "config.yaml"
    saved = OmegaConf.load(file)
    for key, end in ends.items():
        if end != OmegaConf.select(saved, f"trainer.{key}"):
            OmegaConf.update(saved, f"trainer.{key}", end, force_add=True)
    with written_whole(file) as part:
        OmegaConf.save(saved, part)


def check_end(config: DictConfig, checkpoint: dict[str, Any]) -> int:
    """The iterations that a run to be resumed has done.

    Raises:
        AtEnd: if there are none left to do.
    """
    iterations, resume = checkpoint["global_step"], f"resume={shorten(config.resume)}"
    reached = {"max_epochs": epochs_done(checkpoint), "max_steps": iterations}
    for key, done in reached.items():
        end = config.trainer[key]
        if end not in (-1, None) and done >= end:
            command = f"{python()} -m gan_lightning resume={as_argument(shorten(config.resume))}"
            further = f"further: {command} trainer.{key}={done + max(1, done // 5)}"
            way_out = "its schedule has fallen to its end" if has_end_in_schedule(config) else further
            raise AtEnd(f"{resume}: the run is at its end, trainer.{key}={end}; {way_out}")
    if (timer := timer_of(config)) and (state := checkpoint["callbacks"].get("Timer")):
        timer.load_state_dict(state)
        if timer.time_remaining() <= 0:
            raise AtEnd(
                f"{resume}: the run is at its end, trainer.max_time={config.trainer.max_time}; "
                "further: a longer one, which counts from the start of the run"
            )
    return int(iterations)


def timer_of(config: DictConfig) -> Any:
    """What Lightning makes of trainer.max_time; None without one."""
    from lightning.pytorch.callbacks import Timer

    limit = config.trainer.get("max_time")
    return Timer(OmegaConf.to_container(limit) if OmegaConf.is_config(limit) else limit) if limit else None
