"""From what was typed after -m to the overrides of each job."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from gan_lightning.runs.typed import quote

REPORTING = "callbacks.pruning"  # the key that makes a trial's job report to its study


def parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def for_jobs(config: DictConfig, typed: Sequence[str]) -> list[str]:
    """The overrides of all jobs: sweep.settings, then what was typed. Some may have several values."""
    words = [word for word, override in zip(typed, parse(typed), strict=True) if not of_sweep(override)]
    keys = {override.key_or_group for override in parse(words)}
    check_once(typed)
    settings = list(config.sweep.settings)
    settings = [
        word for word, override in zip(settings, parse(settings), strict=True) if override.key_or_group not in keys
    ]
    return [*settings, *words, f"hydra.sweep.dir={quote(config.hydra.sweep.dir)}"]


def check_once(typed: Sequence[str]) -> None:
    """Raise ValueError for a value that is typed twice, since both jobs would be the same."""
    for override in parse(typed):
        if override.is_choice_sweep():
            values = [str(value) for value in override.sweep_iterator()]
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{override.input_line}: {twice[0]} is there twice; leave one out")


def of_sweep(override: Override) -> bool:
    return override.key_or_group.split("/")[0].split(".")[0] == "sweep"


def of_the_run(overrides: Sequence[str]) -> list[str]:
    """The overrides that repeat the run when they are typed after `python -m gan_lightning`."""
    keys = [override.key_or_group for override in parse(overrides)]
    return [
        word
        for word, key in zip(overrides, keys, strict=True)
        if not key.startswith(("hydra.", "hydra/")) and key != REPORTING
    ]


def job_folder(config: DictConfig, number: int) -> Path:
    return Path(str(config.hydra.sweep.dir)) / str(number)


def check_folders(config: DictConfig) -> None:
    """Raise ValueError if hydra.sweep.subdir asks for other folders than `job_folder`."""
    with open_dict(config):
        config.hydra.job.num = 0
    if (asked := str(config.hydra.sweep.subdir)) != "0":
        raise ValueError(f"hydra.sweep.subdir={asked}: each job runs in the folder of its number; leave it out")
