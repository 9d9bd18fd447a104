"""Who may import whom, as DESIGN.md has it; read from the source, nothing is imported."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gan_lightning"
COMMANDS = {  # what goes through cli.command
    file.stem
    for file in PACKAGE.glob("*.py")
    if "from gan_lightning.cli.command import command" in file.read_text(encoding="utf-8")
}
TORCH = {"losses", "penalties", "conditioning", "augment", "schedules", "ema", "noise", "images", "models", "metrics"}
LIGHT = {"cli", "files", "terminal", "sweeps"}  # the way into a command: what it imports is there at once
OURS = {  # what of this package a room may import; COMMANDS may import all but each other
    "files": set(),
    "terminal": {"files"},
    **dict.fromkeys(TORCH, TORCH),
    "metrics": TORCH | {"files"},  # where judges and references are kept
    "gan": TORCH - {"metrics", "images"},
    "devices": set(),
    "data": {"noise", "images", "files"},
    "trackers": {"files"},
    "runs": {"gan", "conditioning", "ema", "metrics", "files", "terminal"},
    "callbacks": TORCH | {"trackers", "gan", "runs", "files", "terminal"},
    "cli": {"runs", "files", "terminal"},
    "sweeps": {"cli", "callbacks", "runs", "metrics", "files", "terminal"},
}
HYDRA = COMMANDS | {"cli", "runs", "sweeps"}
FILES = sorted(PACKAGE.rglob("*.py"))


def part(file: Path) -> str:
    """models/mlp.py -> models, gan.py -> gan."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path, at_import: bool = False) -> set[str]:
    """Dotted names that a file imports; with `at_import` only those that run when it is itself imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if at_import:
        lazy = (ast.FunctionDef, ast.AsyncFunctionDef, ast.If)  # `if TYPE_CHECKING:`
        inside = {node for outer in nodes if isinstance(outer, lazy) for node in ast.walk(outer) if node is not outer}
        nodes = [node for node in nodes if node not in inside]
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def libraries(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_those_below_it(file: Path) -> None:
    names = imported(file)
    ours = {name.split(".")[1] for name in names if name.startswith("gan_lightning.")} - {"__version__"}
    mine = part(file)
    if mine != "__main__":
        assert not ours & COMMANDS, "only __main__ imports a command"
    assert ours <= OURS.get(mine, ours) | {mine}
    if mine in TORCH:
        assert not libraries(names) & {"lightning", "hydra", "omegaconf"}
    if mine not in HYDRA:
        assert not libraries(names) & {"hydra", "omegaconf"}


def test_no_rooms_import_each_other() -> None:
    below = {name: rooms - {name} for name, rooms in OURS.items() if name not in TORCH - {"metrics"}}
    while below:
        lowest = [name for name, rooms in below.items() if not rooms & below.keys()]
        assert lowest, f"a circle among {sorted(below)}"
        below = {name: rooms for name, rooms in below.items() if name not in lowest}


def test_the_top_of_the_package_fits_a_glance() -> None:
    assert len([file for file in PACKAGE.glob("*.py") if not file.stem.startswith("__")]) <= 18


def test_modules_within_a_room_do_not_import_each_other_in_circles() -> None:
    names = {".".join(("gan_lightning", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in FILES}
    below = {}
    for name, file in names.items():
        found = imported(file, at_import=True)
        below[name] = {
            other
            for other in names
            if other != name
            and (other in found or any(one.startswith(f"{other}.") and one not in names for one in found))
        }
    while below:
        lowest = [name for name, others in below.items() if not others & below.keys()]
        assert lowest, f"a circle among {sorted(below)}"
        below = {name: others for name, others in below.items() if name not in lowest}


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if part(file) in LIGHT | COMMANDS | {"__init__", "__main__"} or part(file) == "runs"],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_what_answers_at_once_imports_nothing_heavy(file: Path) -> None:
    optuna_or_torch = "checkpoint.py", "ranking.py", "warm.py", "pruning.py", "sampler.py"
    if file.name in optuna_or_torch:  # imported by those that need them
        return
    heavy = {"torch", "torchvision", "lightning", "torchmetrics", "tensorboard", "optuna", "matplotlib", "scipy"}
    names = imported(file, at_import=True)
    assert not libraries(names) & heavy
    allowed = {"__init__", "__main__", "data", "metrics", "runs"} | LIGHT | COMMANDS
    assert {n.split(".")[1] for n in names if n.startswith("gan_lightning.")} <= allowed
