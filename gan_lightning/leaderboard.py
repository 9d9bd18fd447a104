"""Rank the runs below a folder: a table in the terminal, leaderboard.csv and leaderboard.html."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from gan_lightning.cli.command import command
from gan_lightning.files import expand, output_path, shorten

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


@command("leaderboard")
def main(config: DictConfig) -> None:
    from gan_lightning.runs.ranking import SWEEP_LOG, check_metric, rank_runs
    from gan_lightning.runs.tables import show

    runs = expand(str(config.runs), "runs")
    rows = rank_runs(runs, config.metric, config.direction)
    if not rows:
        raise ValueError(f"runs={config.runs}: there is no run below it; name a folder such as outputs")
    check_metric(rows, config.metric)
    beside = runs / "leaderboard" if (runs / SWEEP_LOG).exists() else runs  # a sweep's folder has its own
    out = output_path(config.out, beside, example=None)
    files = show(rows, config.metric, out, title=str(config.runs), most=config.most)
    log.info("%s", "\n".join(shorten(file) for file in files))


if __name__ == "__main__":
    sys.exit(main())
