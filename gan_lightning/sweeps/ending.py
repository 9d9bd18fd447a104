"""What is around a sweep of any kind: its log, Ctrl-C, and the leaderboard when it is over."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig

from gan_lightning.cli.errors import JobsFailed
from gan_lightning.files import BYTES, shorten
from gan_lightning.runs.ranking import SWEEP_LOG, rank_runs
from gan_lightning.runs.tables import show
from gan_lightning.sweeps.launcher import ProcessLauncher

log = logging.getLogger("gan_lightning.sweeps")


@contextmanager
def at_work(config: DictConfig, launcher: Any, stopping: threading.Event | None) -> Iterator[None]:
    """Around the jobs of a sweep.

    What it says goes to sweep.log in its folder as well, with the time. At Ctrl-C or SIGTERM `stopping` is set, which
    lets the jobs save and end; the second one kills them; the third is Python's own. Then KeyboardInterrupt is raised.

    Args:
        stopping: None for a launcher whose jobs see the Ctrl-C themselves.
    """
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / SWEEP_LOG, encoding="utf-8", errors=BYTES)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    log.addHandler(handler)
    log.info("%s: %d at a time", shorten(folder), config.sweep.workers)
    unused = [key for key in ("timeout", "retries", "gpus_per_job") if config.sweep[key]]
    if unused and not isinstance(launcher, ProcessLauncher):
        log.warning("%s: not used by this hydra/launcher", ", ".join(f"sweep.{key}" for key in unused))
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        assert stopping
        stopping.set()
        if pressed and hasattr(launcher, "kill"):
            launcher.kill()
        if pressed:
            signal.signal(number, signal.default_int_handler)
        elif hasattr(launcher, "kill"):
            log.info("the jobs save their checkpoints and end; a second Ctrl-C kills them")
        else:
            log.info("no other job is started; those that were submitted go on (scancel)")
        pressed = True

    numbers = (signal.SIGINT, signal.SIGTERM) if stopping else ()
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    except Exception as error:
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (error,), sys.exc_info())
        handler.emit(record)  # the traceback goes to the file; the line to the terminal comes at the end
        if not pressed:
            raise
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
        if hasattr(launcher, "close"):
            launcher.close()
        if pressed:
            log.info("stopped; the same command with sweep.name=%s goes on", config.sweep.name)
        log.removeHandler(handler)
        handler.close()
    if pressed:
        raise KeyboardInterrupt


def finish(config: DictConfig) -> None:
    """Print the leaderboard of a sweep, and write it to the sweep's folder.

    Raises:
        JobsFailed: if a job failed.
    """
    folder, settings = Path(config.hydra.sweep.dir), config.sweep
    with FileLock(folder / ".leaderboard.lock"):  # several sweeps of one study may end together
        rows = rank_runs(folder, settings.metric, settings.direction)
        files = show(rows, settings.metric, folder, title=shorten(folder))
    log.info("%s", "\n".join(shorten(file) for file in files))
    runs = [run for row in rows for run in row.runs]
    failed = [run for run in runs if run.state.name in ("failed", "killed")]
    if left := [run for run in runs if run not in failed and not run.state.is_final]:
        log.info("%d jobs have not ended: %s is %s", len(left), shorten(left[0].folder), left[0].state.name)
    if failed:
        raise JobsFailed(
            f"{len(failed)} of {len(runs)} jobs failed, the first: {shorten(failed[0].folder)}: "
            f"{failed[0].state.error or failed[0].state.name}"
        )
