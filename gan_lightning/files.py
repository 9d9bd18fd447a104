"""Find conf/ and other folders, print paths, and write files whole or not at all."""

import os
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
BYTES = "surrogateescape"  # writes and prints a name that is not UTF-8 byte for byte


def conf_dir() -> Path:
    """The folder of YAML files of the imported package.

    The checkout comes first: an editable install leaves a copy of conf/ in site-packages, which gets out of date.
    """
    for folder in (PACKAGE.parent / "conf", PACKAGE / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/train.yaml beside or inside {PACKAGE}; install the package again")


def cache_folder(name: str) -> Path:
    """A folder for what is fetched, computed or trained once: below GAN_LIGHTNING_DATA or ~/.cache/gan_lightning."""
    return Path(os.environ.get("GAN_LIGHTNING_DATA") or "~/.cache/gan_lightning") / name


def expand(path: str | Path, key: str) -> Path:
    """Replace `~` by the home folder; ValueError, with `key`, if the user has none, as in some containers."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{key}={path}: this user has no home folder; set another, or GAN_LIGHTNING_DATA=<folder> for all data"
        ) from error


def groups() -> list[str]:
    """Every folder of conf/ with options: data, model, …, without Hydra's own."""
    folders = {path.parent.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")}
    return sorted(group for group in folders if group != "." and not group.startswith("hydra/"))


def options(group: str) -> list[str]:
    """The options of a group: its files without .yaml, but those that start with _, on which others build."""
    return sorted(path.stem for path in (conf_dir() / group).glob("[!_]*.yaml"))


def python() -> str:
    """How to type this interpreter: `python` if that starts it, or else its path, such as .venv/bin/python."""
    found = shutil.which("python")
    if found and Path(found).parent.absolute() == Path(sys.executable).parent:
        return "python"
    return shlex.quote(shorten(sys.executable))


def shorten(path: str | Path) -> str:
    """The path relative to the working folder, if it is inside."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextmanager
def written_whole(path: Path, several_writers: bool = False) -> Iterator[Path]:
    """A name to write to, which becomes `path` at the end: nobody sees half a file, and an error leaves the old one.

    Args:
        several_writers: processes may write this file at the same time, so each gets a name of its own. Otherwise the
            name is always the same, and the next writer writes over what a killed process has left.

    Raises:
        ValueError: if something is there that a file must not replace.
    """
    check_replaceable(path)
    path = Path(os.path.realpath(path))  # a link stays a link; its target is written
    path.parent.mkdir(parents=True, exist_ok=True)
    too_long = len(os.fsencode(path.name)) > 250  # of 255 bytes
    own = f".{uuid.uuid4().hex[:12]}" if several_writers else ""
    part = path.with_name(f"{path.name[:-5] if too_long else path.name}{own}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # else a crash of the machine may leave an empty file of that name
        os.replace(part, path)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) == str(part):
            error.filename, error.filename2 = str(path), None  # the name that people know
        raise
    finally:
        with suppress(OSError):  # it is gone, or the error above matters more
            part.unlink()


def output_path(typed: str | None, default: Path, example: str | None) -> Path:
    """The path that `out=` names, checked before the work begins.

    Args:
        default: the path if nothing is typed.
        example: a name for the file; None if `out=` names a folder.

    Raises:
        ValueError: if the path is a folder instead of a file or the other way round, or cannot be written to.
    """
    path = expand(str(typed), "out") if typed else default
    shown = f"out={typed or path}"
    if example and path.is_dir():
        raise ValueError(f"{shown} is a folder; name a file, such as out={path / example}")
    if example:
        check_replaceable(path, shown)
    folders = path.parents if example else (path, *path.parents)
    if blocking := next((place for place in folders if place.exists() and not place.is_dir()), None):
        where = shown if blocking == path else f"{shown}: {blocking}"
        raise ValueError(f"{where} is not a folder; choose another place with out=…")
    real = Path(os.path.realpath(path))
    existing = next(place for place in (real, *real.parents) if place.is_dir())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{shown}: {existing} cannot be written to; choose another place with out=…")
    return path


def check_suffix(typed: str | None, format: str, suffixes: dict[str, str]) -> None:
    """Raise ValueError if the suffix of `out=` belongs to another format than `format=`."""
    path = Path(str(typed or ""))
    suffix, own = path.suffix.lower(), suffixes[format]
    if suffix in ("", own) or suffix[1:].isdigit() or path.is_dir():  # truncation_0.7; output_path tells of folders
        return
    if meant := [name for name in suffixes if suffixes[name] == suffix]:
        raise ValueError(f"out={typed} has the suffix of another format than format={format}; add format={meant[0]}")
    raise ValueError(
        f"out={typed}: format={format} does not write {suffix} files; name it {path.with_suffix(own)} "
        f"(formats: {', '.join(suffixes)})"
    )


def check_replaceable(path: Path, shown: str | None = None) -> None:
    """Raise ValueError for a device, a pipe or a socket, also behind links: a file would replace it."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{shown or path} is a device or a pipe, which a file would replace; name a file")
