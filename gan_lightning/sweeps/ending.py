"""A sweep's log, its signals, and the leaderboard at its end."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
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
    """Run the jobs of a sweep inside of this: it writes sweep.log, and listens to Ctrl-C and SIGTERM.

    The first Ctrl-C sets `stopping`, so that the jobs save and end; the second one kills them; the third one is
    Python's own. At the end it raises KeyboardInterrupt, if there was one.

    Args:
        stopping: None for a launcher whose jobs see the Ctrl-C themselves.
    """
    pressed = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM) if stopping else ()
    with sweep_log(Path(config.hydra.sweep.dir)) as handler:
        log.info("%s: %d at a time", shorten(config.hydra.sweep.dir), config.sweep.workers)
        unused = [f"sweep.{key}" for key in ("timeout", "retries", "gpus_per_job") if config.sweep[key]]
        if unused and not isinstance(launcher, ProcessLauncher):
            log.warning("%s: not used by this hydra/launcher", ", ".join(unused))
        try:
            with handling(numbers, partial(stop, launcher, stopping, pressed)):
                yield
        except Exception as error:
            record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (error,), sys.exc_info())
            handler.emit(record)  # the traceback goes to the file; the line for the terminal comes at the end
            if not pressed.is_set():
                raise
        finally:
            if hasattr(launcher, "close"):
                launcher.close()
            if pressed.is_set():
                log.info("stopped; the same command with sweep.name=%s goes on", config.sweep.name)
    if pressed.is_set():
        raise KeyboardInterrupt


@contextmanager
def sweep_log(folder: Path) -> Iterator[logging.Handler]:
    """Write what is logged to sweep.log as well, with the time."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / SWEEP_LOG, encoding="utf-8", errors=BYTES)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    log.addHandler(handler)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        handler.close()


@contextmanager
def handling(numbers: Iterable[int], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle these signals so, and as before afterwards."""
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def stop(
    launcher: Any, stopping: threading.Event | None, pressed: threading.Event, number: int, frame: FrameType | None
) -> None:
    """Handle a Ctrl-C, the first one or a later one."""
    assert stopping
    stopping.set()
    can_kill = hasattr(launcher, "kill")
    if pressed.is_set():
        if can_kill:
            launcher.kill()
        signal.signal(number, signal.default_int_handler)
    elif can_kill:
        log.info("the jobs save their checkpoints and end; a second Ctrl-C kills them")
    else:
        log.info("no other job is started; those that were submitted go on (scancel)")
    pressed.set()


def finish(config: DictConfig) -> None:
    """Print a sweep's leaderboard, and write it to the sweep's folder. Raise JobsFailed if a job failed."""
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
