"""Logging: one line for the terminal, everything for train.log."""

import logging
import sys
import warnings
from typing import Any

from gan_lightning.cli.processes import rank
from gan_lightning.terminal import one_line

DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def log_warnings() -> None:
    """Show a warning as one line on the terminal and in train.log; a library's deprecation only in train.log."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        level = logging.DEBUG if issubclass(category, DEPRECATIONS) else logging.WARNING
        where = f"({filename}:{lineno})"
        logging.getLogger("py.warnings").log(level, "%s: %s %s", category.__name__, one_line(message), where)

    warnings.showwarning = show
    # On a cluster's login node, and on every machine where it is installed.
    warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")
    warnings.filterwarnings("ignore", "You defined a `validation_step` but have no")  # metrics=none says so
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line logged


class TerminalHandler(logging.StreamHandler):
    """Write to the current sys.stdout, which a progress bar replaces while it is shown.

    Used by conf/hydra/job_logging.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


class RankZero(logging.Filter):
    """Let only the first of a run's processes write. Used by conf/hydra/job_logging."""

    def filter(self, record: logging.LogRecord) -> bool:
        return rank() == 0
