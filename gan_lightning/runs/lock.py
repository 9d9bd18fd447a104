"""One training at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gan_lightning.files import shorten

LOCK = ".lock"  # in the folder


@contextmanager
def alone_in(folder: Path, key: str = "hydra.run.dir") -> Iterator[None]:
    """Two trainings, or two sweeps, in one folder would tear each other's files apart.

    Args:
        key: what sets the folder, for the error.

    Raises:
        ValueError: if another one is at work there.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1)  # `is_locked` has a part in it for a moment
    except Timeout:
        raise ValueError(f"{key}={shorten(folder)}: another process is at work there; wait, or stop it") from None
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows it goes at the release
            (folder / LOCK).unlink(missing_ok=True)  # before another can have it
        lock.release()


def is_locked(file: Path) -> bool:
    """Does a training hold the lock of its folder? A file that a killed one has left does not count."""
    from filelock import FileLock, Timeout

    if not file.exists():
        return False
    try:
        with FileLock(file).acquire(timeout=0.1, poll_interval=0.02):  # two who ask do not take each other for one
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's, which may be looked at and not touched
        return file.exists()
