"""What is around a sweep of any kind: its log, Ctrl-C, and the leaderboard when it is over."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from gan_lightning.errors import JobsFailed
from gan_lightning.paths import shorten
from gan_lightning.sweeps.launcher import ProcessLauncher
from gan_lightning.sweeps.ranking import rank_runs, show

log = logging.getLogger("gan_lightning.sweeps")


@contextmanager
def at_work(config: DictConfig, launcher: Any, stop: Callable[[], None] | None) -> Iterator[None]:
    """Around the jobs of a sweep.

    What it says goes to sweep.log in its folder as well, with the time. At Ctrl-C or SIGTERM `stop` is called, which
    lets the jobs save and end, the second time kills them; then KeyboardInterrupt is raised.

    Args:
        stop: None for a launcher whose jobs see the Ctrl-C themselves.
    """
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "sweep.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    log.addHandler(handler)
    log.info("%s: %d at a time", shorten(folder), config.sweep.workers)
    unused = [key for key in ("timeout", "retries", "gpus_per_job") if config.sweep[key]]
    if unused and not isinstance(launcher, ProcessLauncher):
        log.warning("%s: not used by this hydra/launcher", ", ".join(f"sweep.{key}" for key in unused))
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        assert stop
        if not pressed:
            log.info("the jobs save their checkpoints and end; a second Ctrl-C kills them")
        pressed = True
        stop()

    numbers = (signal.SIGINT, signal.SIGTERM) if stop else ()
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
        if pressed:
            log.info("stopped; the same command with sweep.name=%s goes on", config.sweep.name)
            raise KeyboardInterrupt
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
        if hasattr(launcher, "close"):
            launcher.close()
        log.removeHandler(handler)
        handler.close()


def finish(config: DictConfig) -> None:
    """Print the leaderboard of a sweep, and write it to the sweep's folder.

    Raises:
        JobsFailed: if a job ended without a result.
    """
    folder, settings = Path(config.hydra.sweep.dir), config.sweep
    rows = rank_runs(folder, settings.metric, settings.direction)
    files = show(rows, settings.metric, folder, title=shorten(folder))
    log.info("%s", "\n".join(shorten(file) for file in files))
    failed = [run for row in rows for run in row.runs if not run.state.is_final]
    if failed:
        number = sum(len(row.runs) for row in rows)
        raise JobsFailed(
            f"{len(failed)} of {number} jobs failed, the first: {shorten(failed[0].folder)}: "
            f"{failed[0].state.error or failed[0].state.name}"
        )
