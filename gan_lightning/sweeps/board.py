"""Show a sweep: a line when a job starts and ends; in a terminal also what each worker does."""

import logging
import re
import threading
from pathlib import Path

from rich.live import Live
from rich.text import Text

from gan_lightning.metrics.better import direction_of
from gan_lightning.runs.state import RunState
from gan_lightning.sweeps.job import Job
from gan_lightning.terminal import format_seconds

log = logging.getLogger(__name__)

TAIL = 4096  # bytes at the end of a log that are searched for its last line
SAID = re.compile(r"INFO +gan_lightning[\w.]*: (\S.*)")  # logged by us, not by Lightning


class Board:
    """The workers of a sweep and the best score so far."""

    def __init__(self, workers: int, metric: str, direction: str | None = None) -> None:
        self.metric = metric
        self.sign = 1 if direction_of(metric, direction, "sweep.direction") == "minimize" else -1
        self.at_work: dict[int, Job] = {}  # by slot
        self.workers = workers
        self.best: tuple[float, int] | None = None
        self.lock = threading.Lock()
        self.live: Live | None = None

    def started(self, slot: int, job: Job) -> None:
        with self.lock:
            self.at_work[slot] = job
            if self.live is None:
                self.live = Live(
                    get_renderable=self._lines, transient=True, refresh_per_second=2, redirect_stderr=False
                )
                if self.live.console.is_terminal:
                    self.live.start()
        log.info("job %d: %s", job.number, " ".join(job.overrides))

    def ended(self, slot: int, job: Job, state: RunState, seconds: float) -> None:
        with self.lock:
            del self.at_work[slot]
        if not self.at_work:
            self.close()
        self._tell(job, state, f"after {format_seconds(seconds)}")

    def close(self) -> None:
        """Give the terminal back."""
        with self.lock:
            if self.live is not None:
                self.live.stop()
                self.live = None

    def kept(self, job: Job, state: RunState) -> None:
        """A job that ended in an earlier sweep."""
        self._tell(job, state, "before")

    def _tell(self, job: Job, state: RunState, when: str) -> None:
        value = state.score(self.metric)
        with self.lock:
            if state.name == "done" and value is not None:
                self.best = min(filter(None, (self.best, (self.sign * value, job.number))), key=lambda pair: pair[0])
        parts = [f"job {job.number}: {state.name} {when}"]
        if state.error:
            parts.append(state.error)
        if value is not None:
            parts.append(f"{self.metric} {value:.4f}")
        if self.best:
            parts.append(self._best())
        log.log(logging.WARNING if state.error else logging.INFO, "%s", "; ".join(parts))

    def _best(self) -> str:
        assert self.best
        return f"best so far {self.sign * self.best[0]:.4f}, job {self.best[1]}"

    def _lines(self) -> Text:
        lines = []
        for slot in range(self.workers):
            job = self.at_work.get(slot)
            lines.append(f"worker {slot + 1}: " + (f"job {job.number}, {last_line(job.folder)}" if job else "idle"))
        if self.best:
            lines.append(self._best())
        return Text("\n".join(lines), overflow="ellipsis", no_wrap=True)


def last_line(run: Path) -> str:
    """The last line that a run has logged to its train.log."""
    try:
        with (run / "train.log").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "starts"
    told = [found[1] for line in lines if (found := SAID.search(line))]
    return told[-1] if told else "starts"
