"""Where conf/ is: at the top of a checkout, inside the package of an installed wheel."""

import os
import shlex
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of YAML files that belongs to the imported package.

    The checkout comes first: an editable install leaves a copy of conf/ in site-packages, which goes stale.
    """
    for folder in (PACKAGE.parent / "conf", PACKAGE / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/train.yaml beside or inside {PACKAGE}; install the package again")


def cache_folder(name: str) -> Path:
    """Where what was fetched, computed or trained once is kept: below GAN_LIGHTNING_DATA or ~/.cache/gan_lightning."""
    return Path(os.environ.get("GAN_LIGHTNING_DATA") or "~/.cache/gan_lightning") / name


def expand(path: str | Path, key: str) -> Path:
    """A path with the home folder for `~`.

    Raises:
        ValueError: if the user has none, as in some containers; `key` is what sets the path.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{key}={path}: this user has no home folder; set {key}, or GAN_LIGHTNING_DATA=<folder> for all data"
        ) from error


def groups() -> list[str]:
    """Every folder of conf/ that holds options: data, model, … but not Hydra's own."""
    folders = {path.parent.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")}
    return sorted(group for group in folders if group != "." and not group.startswith("hydra/"))


def options(group: str) -> list[str]:
    """The files of a group, without .yaml."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def python() -> str:
    """This interpreter as it can be typed here: `python` where that is it, else its path, such as .venv/bin/python."""
    found = shutil.which("python")
    if found and Path(found).parent.absolute() == Path(sys.executable).parent:
        return "python"
    return shlex.quote(shorten(sys.executable))


def shorten(path: str | Path) -> str:
    """The path as people type it: relative to the working folder where it lies below it."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
