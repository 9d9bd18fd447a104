"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` at the end: nobody sees half a file, and an error leaves the old one.

    For one writer at a time: the name is always the same, so that what a killed process leaves is written over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    too_long = len(os.fsencode(path.name)) > 250  # of 255 bytes
    part = path.with_name(f"{path.name[:-5] if too_long else path.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # else a crash of the machine may leave the new name on an empty file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
