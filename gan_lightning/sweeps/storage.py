"""Open the file or database that keeps a study."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def open_storage(place: str) -> BaseStorage:
    """Optuna's storage at a database's URL, or in a journal file, which many processes may write to."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError("sweep=…: a study needs Optuna: pip install 'gan-lightning[sweeps]'") from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if "://" in place:
        return open_database(place)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(place))


def open_database(url: str, tries: int = 5) -> BaseStorage:
    """Open a database. Two sweeps that open a new one at once both make its tables, and one has to try again."""
    from optuna.storages import get_storage

    try:
        return get_storage(url)
    except Exception as error:
        beaten = "already exists" in str(error) or "alembic_version" in str(error)  # a table, or its version
        if tries == 1 or not beaten:
            raise
    time.sleep(1)
    return open_database(url, tries - 1)
