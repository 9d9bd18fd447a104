"""Where conf/ is: at the top of a checkout, inside the package of an installed wheel."""

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


def groups() -> list[str]:
    """Every folder of conf/ that holds options: data, model, … but not Hydra's own."""
    folders = {path.parent.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")}
    return sorted(group for group in folders if group != "." and not group.startswith("hydra/"))


def options(group: str) -> list[str]:
    """The files of a group, without .yaml."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def shorten(path: str | Path) -> str:
    """The path as people type it: relative to the working folder where it lies below it."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
