"""One training at a time in a folder: a file that a running process holds locked."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gan_lightning.files import shorten

LOCK = ".lock"  # in the folder


@contextmanager
def alone_in(folder: Path, key: str = "hydra.run.dir") -> Iterator[None]:
    """Lock a folder for one training or one sweep: two would overwrite each other's files.

    Args:
        key: of the config, which sets the folder.

    Raises:
        ValueError: if another process is at work there.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1)  # `is_locked` holds it for a moment
    except Timeout:
        raise ValueError(f"{key}={shorten(folder)}: another process is at work there; wait, or stop it") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove a file that is open
            (folder / LOCK).unlink(missing_ok=True)  # before another can have it
        lock.release()


def is_locked(file: Path) -> bool:
    """Does a running process hold this lock? A file that a killed process has left does not count."""
    from filelock import FileLock, Timeout

    if not file.exists():
        return False
    try:
        with FileLock(file).acquire(timeout=0.1, poll_interval=0.02):  # longer than another `is_locked` holds it
            return False
    except Timeout:
        return True
    except OSError:  # of another user, whose file may be read but not locked
        return file.exists()
