"""Print in UTF-8 whatever the locale, and go on working if nobody can read it."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gan_lightning.files import BYTES

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160  # characters of a table in a file or a pipe


class Outlet(io.RawIOBase):
    """A stream that drops what cannot be written: its reader may go away (`| head -1`), its disk may be full.

    Args:
        raw: the stream to write to, of bytes, without a buffer.
    """

    def __init__(self, raw: Any) -> None:
        self.below = raw
        self.error: OSError | None = None  # the first one

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.below.fileno())

    def isatty(self) -> bool:
        return bool(self.below.isatty())

    def write(self, data: Any) -> Any:
        try:
            return self.below.write(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)

    @property
    def is_full(self) -> bool:
        """Was something lost because the disk is full?"""
        return self.error is not None and self.error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def use_utf_8() -> None:
    """Restart this command in Python's UTF-8 mode, if the locale names files in another encoding.

    Libraries write UTF-8: TensorBoard's event file would end up in another folder, or nowhere.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    is_command = spec is not None and spec.name.startswith("gan_lightning")  # not a notebook or a test
    if is_command and sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # also for the processes that it starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def open_outlets() -> Outlet | None:
    """Replace Python's own stdout and stderr by an `Outlet`; one that is closed becomes the null device.

    Returns:
        The outlet of stdout; None if stdout is somebody else's (a notebook's, a test's).
    """
    for number in range(3):  # else the next file that is opened gets its number, and what is printed
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # child processes have it too
    found = None
    for number, name in enumerate(("stdout", "stderr"), start=1):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        below = stream.buffer if stream else io.FileIO(number, "w", closefd=False)
        outlet = Outlet(getattr(below, "raw", below))
        found = outlet if name == "stdout" else found
        unbuffered = stream and below is outlet.below  # python -u
        buffer: Any = outlet if unbuffered else io.BufferedWriter(outlet)
        text = io.TextIOWrapper(
            buffer,
            encoding="utf-8",
            errors=BYTES,  # a file name that is not UTF-8 is printed byte for byte, and can be pasted
            line_buffering=bool(stream and stream.line_buffering),
            write_through=bool(stream and stream.write_through),
        )
        setattr(sys, name, text)
    return found


def printer(**settings: Any) -> Console:
    """A console for tables: as wide as the terminal; elsewhere of a fixed width, whatever COLUMNS says."""
    from rich.console import Console

    console = Console(**settings)
    return console if console.is_terminal else Console(width=WIDTH, **settings)


def one_line(text: object, most: int | None = None) -> str:
    """A text of several lines as one; blanks within a line stay, as they may be part of a path.

    Args:
        most: characters. For words from somebody else's file: a longer text is cut, and what cannot be printed, such as
            a terminal's control characters, becomes `?`. None: the text is one of ours.
    """
    line = " ".join(filter(None, map(str.strip, str(text).splitlines())))
    if most is None:
        return line
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= most else f"{line[:most]}…"


def format_seconds(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show what the command is doing, on a terminal only."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_interactive:
        yield
        return
    with console.status(Text(what)):  # not markup: [1] is no style
        yield


def say(line: str) -> None:
    """Print to stderr, after all that was printed to stdout before."""
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
