"""What was typed after -m -> what each job's config follows from."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from gan_lightning.runs.typed import quote

REPORTING = "callbacks.pruning"  # how a trial's job is told to report to its study


def parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def for_jobs(config: DictConfig, typed: Sequence[str]) -> list[str]:
    """The overrides of the jobs, those that stand for several values among them: sweep.settings, then what was typed.

    Args:
        config: of the sweep.
    """
    words = [word for word, override in zip(typed, parse(typed), strict=True) if not of_sweep(override)]
    keys = {override.key_or_group for override in parse(words)}
    settings = list(config.sweep.settings)
    settings = [
        word for word, override in zip(settings, parse(settings), strict=True) if override.key_or_group not in keys
    ]
    return [*settings, *words, f"hydra.sweep.dir={quote(config.hydra.sweep.dir)}"]


def of_sweep(override: Override) -> bool:
    return override.key_or_group.split("/")[0].split(".")[0] == "sweep"


def of_the_run(overrides: Sequence[str]) -> list[str]:
    """Without what only the sweep needs: typed after `python -m gan_lightning`, they repeat the run."""
    keys = [override.key_or_group for override in parse(overrides)]
    return [
        word
        for word, key in zip(overrides, keys, strict=True)
        if not key.startswith(("hydra.", "hydra/")) and key != REPORTING
    ]


def job_folder(config: DictConfig, number: int) -> Path:
    """Where a job of a sweep runs."""
    return Path(str(config.hydra.sweep.dir)) / str(number)


def check_folders(config: DictConfig) -> None:
    """Raises ValueError where hydra.sweep.subdir asks for other folders than `job_folder`."""
    with open_dict(config):
        config.hydra.job.num = 0
    if (asked := str(config.hydra.sweep.subdir)) != "0":
        raise ValueError(f"hydra.sweep.subdir={asked}: jobs run in folders of their numbers; leave it out")
