"""Names people have: what the shell hands over is taken as it stands, what is printed works when pasted.

In Hydra's grammar commas, brackets, quotes and the like are signs, and only a to z count as letters. A value whose key
takes a path or a name is therefore quoted before Hydra reads it, unless it reads as itself.
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

PATH = re.compile(  # a key whose value is one, for our commands, Hydra and loggers
    r"ckpt|resume|out|runs|images|data\.root|(data\.reader|metrics)\.cache|metrics\.\w+\.(judge|weights)|sweep\.storage"
    r"|(.*\.)?((\w*_)?dir|subdir|dirpath)"
)
NAME = re.compile(r"(.*\.)?((\w*_)?name|filename)|logger\..*\.(project|notes)")
# The values of a sweep: what is in quotes, or reaches to the next comma.
VALUES = re.compile(r"""\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?=\s*(?:,|$))|[^,]+""")


def to_hydra(word: str, sweeping: bool = False) -> str:
    """`data.root=Größe` -> `data.root='Größe'`: what Hydra reads as the text that was typed.

    Null stays null, and `${…}` a reference. Quotes around all of a value are Hydra's, a ~ at its start is the home.

    Args:
        word: as the shell hands it over.
        sweeping: whether a comma stands between the values of several jobs.
    """
    key, _, value = word.partition("=")
    plain = key.lstrip("+")
    if not value or not (PATH.fullmatch(plain) or NAME.fullmatch(plain)):
        return word
    if not sweeping or plain.startswith(("hydra.", "sweep.")):  # these are the same for all jobs
        return f"{key}={_as_text(plain, value)}"
    if re.fullmatch(r"\w+\(.*\)", value) and isinstance(_parse(value), Sweep):
        return word  # choice(a,b)
    return f"{key}={','.join(_as_text(plain, part.strip()) for part in VALUES.findall(value))}"


def as_typed(word: str) -> str:
    """The other way round: an override of one value as a person types it."""
    key, _, value = word.partition("=")
    text = _parse(value)
    typed = f"{key}={text.text}" if isinstance(text, QuotedString) else word
    return typed if to_hydra(typed) == word else word


def as_argument(path: str) -> str:
    """A path for a command that is printed: `ckpt={as_argument(path)}` is that path again when it is pasted."""
    return shlex.quote(f"./{path}" if path[0] in "~'\"" or path.lower() == "null" else path)


def quote(path: str | Path) -> str:
    """For Hydra's grammar, which knows blanks, commas and the like as signs of its own."""
    return QuotedString(str(path), Quote.single).with_quotes()


def _as_text(key: str, value: str) -> str:
    if value.lower() == "null":
        return value
    text = _text(value)
    if text and PATH.fullmatch(key):
        text = _at_home(text)
    return text if _parse(text) == text and "\\" not in text else quote(text)  # \ would take in a comma behind it


def _text(value: str) -> str:
    """Without the quotes around it, if there are any."""
    read = _parse(value)
    if isinstance(read, QuotedString):
        return read.text
    # Lightning puts the folder of a run between quotes as it is, for its other processes.
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _parse(value: str) -> Any:
    """What Hydra makes of a value; None also for what it refuses."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")._value
    except HydraException:
        return None


def _at_home(path: str) -> str:
    found = os.path.expanduser(path)
    if found.startswith("~/") or os.path.normpath(found)[0] != "~":
        return found
    return os.path.abspath(found)  # ~x is no user but a folder, and nobody takes the whole path for a user


def rerun_command(overrides: Sequence[str]) -> str:
    """What to type to have the run of these overrides again."""
    # Sums over another number of threads are rounded otherwise.
    threads = os.environ.get("OMP_NUM_THREADS")
    prefix = f"OMP_NUM_THREADS={threads} " if threads else ""
    return prefix + shlex.join(["python", "-m", "gan_lightning", *map(as_typed, overrides)])
