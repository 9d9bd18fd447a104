"""Who may import whom, as DESIGN.md has it; read from the source, nothing is imported."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gan_lightning"
COMMANDS = {  # what goes through cli.command
    file.stem
    for file in PACKAGE.glob("*.py")
    if "from gan_lightning.cli import command" in file.read_text(encoding="utf-8")
}
ENTRY = {"cli", "errors", "names", "numbers", "paths", "resume", "runs", "files", "terminal"}  # the way into a command
PURE = {
    "models",
    "losses",
    "penalties",
    "conditioning",
    "augment",
    "combinations",
    "schedules",
    "metrics",
    "images",
    "ema",
    "latent",
    "randomness",
}
OURS = {  # what of this package a part may import; a part that is not named here may import any but a command
    **dict.fromkeys(PURE, PURE),
    "metrics": PURE | {"paths"},  # where judges and references are kept
    "gan": PURE - {"metrics", "images"},
    "data": {"data", "randomness", "images", "files", "paths"},
    "callbacks": {
        *("callbacks", "conditioning", "metrics", "images", "files", "gan", "losses", "latent", "randomness"),
        *("terminal", "words"),
    },
    "checkpoint": {"gan", "conditioning", "ema", "runs", "files"},
    "runs": {"names", "paths"},
    "names": set(),
    "paths": set(),
    "words": set(),
    "errors": {"paths"},
    "numbers": {"paths"},
    "cli": ENTRY,
    "resume": {"names", "paths", "runs", "files"},
}
HYDRA = COMMANDS | ENTRY | {"checkpoint", "sweeps"}
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
def test_a_part_imports_only_its_neighbours(file: Path) -> None:
    names = imported(file)
    ours = {name.split(".")[1] for name in names if name.startswith("gan_lightning.")}
    mine = part(file)
    if mine != "__main__":
        assert not ours & COMMANDS, "only __main__ imports a command"
    if mine in OURS:
        assert ours <= OURS[mine] | {mine}
    if mine in PURE:
        assert not libraries(names) & {"lightning", "hydra", "omegaconf"}
    if mine not in HYDRA:
        assert not libraries(names) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", sorted(ENTRY | COMMANDS | {"__init__", "__main__"}))
def test_what_answers_at_once_imports_nothing_heavy(name: str) -> None:
    file = PACKAGE / f"{name}.py"
    if file.exists():
        heavy = {"torch", "torchvision", "lightning", "torchmetrics", "tensorboard", "optuna", "matplotlib", "scipy"}
        names = imported(file, at_import=True)
        assert not libraries(names) & heavy
        light = {"__init__", "__main__", "data"} | ENTRY | COMMANDS
        assert {n.split(".")[1] for n in names if n.startswith("gan_lightning.")} <= light
