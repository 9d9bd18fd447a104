"""Paths and names on a command line: read exactly as typed, and printed so that they work when pasted.

In Hydra's grammar commas, brackets and quotes have a meaning, and only a to z are letters. So a value is quoted before
Hydra reads it if its key takes a path or a name, unless Hydra reads it as that text anyway.
"""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Sweep
from hydra.errors import HydraException

PATH = re.compile(  # keys that take a path: of our commands, of Hydra and of loggers
    r"ckpt|resume|out|runs|images|data\.root|(data\.reader|metrics)\.cache|metrics\.\w+\.(judge|weights)|sweep\.storage"
    r"|(.*\.)?((\w*_)?dir|subdir|dirpath)"
)
NAME = re.compile(r"(.*\.)?((\w*_)?name|filename)|logger\..*\.(project|notes)")
# The values of a sweep: each is in quotes, or ends at the next comma.
VALUES = re.compile(r"""\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?=\s*(?:,|$))|[^,]+""")


def to_hydra(word: str, sweeping: bool = False) -> str:
    """`data.root=Größe` -> `data.root='Größe'`: an override that Hydra reads as the text that was typed.

    `null` stays null, and `${…}` a reference. Quotes around the whole value are Hydra's; a ~ at its start is the home
    folder. `sweeping`: commas separate the values of several jobs.
    """
    key, _, value = word.partition("=")
    plain = key.lstrip("+")
    if not value or not (PATH.fullmatch(plain) or NAME.fullmatch(plain)):
        return word
    if not sweeping or plain.startswith(("hydra.", "sweep.")):  # these have one value for all jobs
        return f"{key}={_as_text(plain, value)}"
    if re.fullmatch(r"\w+\(.*\)", value) and isinstance(_parse(value), Sweep):
        return word  # choice(a,b)
    return f"{key}={','.join(_as_text(plain, part.strip()) for part in VALUES.findall(value))}"


def as_typed(word: str) -> str:
    """The reverse of `to_hydra`: an override of one value as a person types it."""
    key, _, value = word.partition("=")
    text = _parse(value)
    typed = f"{key}={text.text}" if isinstance(text, QuotedString) else word
    return typed if to_hydra(typed) == word else word


def as_argument(path: str) -> str:
    """A path for a printed command: `ckpt={as_argument(path)}`, pasted into a shell, names the same path."""
    return shlex.quote(f"./{path}" if path[0] in "~'\"" or path.lower() == "null" else path)


def quote(path: str | Path) -> str:
    """A path in quotes, for Hydra's grammar, in which blanks and commas have a meaning."""
    return QuotedString(str(path), Quote.single).with_quotes()


def _as_text(key: str, value: str) -> str:
    if value.lower() == "null":
        return value
    text = _text(value)
    if text and PATH.fullmatch(key):
        text = _at_home(text)
    return text if _parse(text) == text and "\\" not in text else quote(text)  # a \ before a comma would escape it


def _text(value: str) -> str:
    """Without the quotes around it, if there are any."""
    read = _parse(value)
    if isinstance(read, QuotedString):
        return read.text
    # Lightning starts its other processes with the run's folder in quotes, without escaping anything in it.
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _parse(value: str) -> Any:
    """A value as Hydra reads it; None if Hydra cannot read it."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")._value
    except HydraException:
        return None


def _at_home(path: str) -> str:
    found = os.path.expanduser(path)
    if found.startswith("~/") or os.path.normpath(found)[0] != "~":
        return found
    return os.path.abspath(found)  # a folder named ~x, not a user; the whole path is not mistaken for one


def rerun_command(overrides: Sequence[str]) -> str:
    """The command that repeats the run of these overrides."""
    threads = os.environ.get("OMP_NUM_THREADS")  # another number of them rounds sums differently
    return (f"OMP_NUM_THREADS={threads} " if threads else "") + shlex.join(
        ["python", "-m", "gan_lightning", *map(as_typed, overrides)]
    )
