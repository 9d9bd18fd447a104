"""Run every combination of the values typed, `-m model=mlp,dcgan seed=0,1`, and print a leaderboard."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from gan_lightning.metrics.better import direction_of
from gan_lightning.runs.folder import check_new
from gan_lightning.runs.state import alone_in
from gan_lightning.sweeps.ending import at_work, finish
from gan_lightning.sweeps.launcher import ProcessLauncher
from gan_lightning.sweeps.overrides import for_jobs

log = logging.getLogger(__name__)


class GridSweeper(BasicSweeper):
    """Hydra's own product of values, with our checks, log and leaderboard around it."""

    def sweep(self, arguments: list[str]) -> Any:
        """Raise JobsFailed if a job ended without a result."""
        assert self.config and self.launcher
        folder = Path(self.config.hydra.sweep.dir)
        settings = self.config.sweep
        direction_of(settings.metric, settings.direction, "sweep.direction")  # raises for a mistyped one
        if not self.config.metrics and settings.metric.startswith("metrics/"):
            log.warning("metrics=none: no job will have %s to be ranked by", settings.metric)
        if not isinstance(self.launcher, ProcessLauncher):  # Hydra's launcher would write into earlier runs
            for job in folder.glob("*/.hydra"):
                check_new(job.parent, "sweep.name", settings.name)
        stopping = getattr(self.launcher, "stopping", None)
        with alone_in(folder, "hydra.sweep.dir"), at_work(self.config, self.launcher, stopping):
            results = super().sweep(for_jobs(self.config, arguments))
        finish(self.config)
        return results

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Skip Hydra's check: our launcher composes the configs of all jobs before it starts one."""
        if not isinstance(self.launcher, ProcessLauncher):
            super().validate_batch_is_legal(batch)
