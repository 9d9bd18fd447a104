"""What is logged where: one line for the terminal, everything for train.log."""

import logging
import sys
import warnings
from typing import Any

from gan_lightning.cli.processes import rank

DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def log_warnings() -> None:
    """A warning is one line on the terminal and in train.log; a library's deprecation in train.log only."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        level = logging.DEBUG if issubclass(category, DEPRECATIONS) else logging.WARNING
        text = " ".join(str(message).split())
        logging.getLogger("py.warnings").log(level, "%s: %s (%s:%d)", category.__name__, text, filename, lineno)

    warnings.showwarning = show
    # On a cluster's login node, and on every machine where it is installed.
    warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")
    warnings.filterwarnings("ignore", "You defined a `validation_step` but have no")  # metrics=none says so
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line logged


class TerminalHandler(logging.StreamHandler):
    """Writes to what sys.stdout is at the time, which is not the same while a progress bar is shown.

    Used by conf/hydra/job_logging.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


class RankZero(logging.Filter):
    """Lets the first of a run's processes speak, and no other. Used by conf/hydra/job_logging."""

    def filter(self, record: logging.LogRecord) -> bool:
        return rank() == 0
