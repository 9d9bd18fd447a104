"""What README.md says is so: its commands run, its example trains, its names exist."""

import importlib
import logging
import re
import shlex
import sys
import warnings

import pytest
import torch
from conftest import ROOT
from test_evaluate import ROWS

from gan_lightning.callbacks.alarms import ADVICE
from gan_lightning.callbacks.scalars import Scalars

ONLY_SOME = ("conditional_accuracy", "modes", "modes_kl", "modes_kl_data")  # scores of conditional GANs, of stacks
README = (ROOT / "README.md").read_text(encoding="utf-8")

SHRINK = [
    "++trainer.limit_train_batches=2",
    "trainer.max_epochs=1",
    "data.batch_size=16",
    "trainer.log_every_n_steps=1",
    "metrics=none",
]
FEW = {
    "gan_lightning.evaluate": ["num_samples=600", "metrics.cache=null"],
    "gan_lightning.leaderboard": ["metric=loss/generator"],
}

MAKE = {"train": "gan_lightning", "sample": "gan_lightning.sample"}  # a target's module
SKIPPED = {  # how a command begins -> why it is not run here
    "make install": "this environment is what it makes",
    "make tensorboard": "serves until it is stopped; tests/test_dashboard.py reads what it shows",
    "make test": "would run this test",
    "make check": "changes files; CI is where it fails",
    "make bench": "minutes, and needs MNIST",
    "make help": "lists the targets",
    "make clean": "removes files",
    "tensorboard": "serves until it is stopped",
    "git": "needs the network",
    "cd": "of no effect here",
    "source": "of no effect here",
    "pip": "needs the network",
    "python -m pip": "needs the network",
}


def blocks(text, language):
    """What stands in fenced blocks of a language."""
    found, inside = [], None
    for line in text.splitlines(keepends=True):
        if line.startswith("```"):
            if inside is None:
                inside = line.strip("`\n")
                found.append((inside, ""))
            else:
                inside = None
        elif inside is not None:
            found[-1] = (inside, found[-1][1] + line)
    return [content for of, content in found if of == language]


def commands(text):
    """The commands in bash blocks: comments, prompts and continued lines resolved, words as the shell sees them."""
    found = []
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for part in " ".join(shlex.quote(word) for word in words).split(" '&&' "):
                if part:
                    found.append(shlex.split(part))
    return found


def module_and_arguments(words):
    """("gan_lightning", ["model=dcgan"]), or None where the list above has a reason."""
    if words[0] == "make" and words[1] in MAKE:
        variables = dict(word.split("=", 1) for word in words[2:])
        return MAKE[words[1]], shlex.split(variables.get("ARGS", ""))
    while "=" in words[0]:  # VARIABLE=value python …
        words = words[1:]
    if words[:2] == ["python", "-m"] and words[2].startswith("gan_lightning"):
        return words[2], words[3:]
    assert any(" ".join(words).startswith(start) for start in SKIPPED), f"neither run nor skipped: {' '.join(words)}"
    return None


RUN = {shlex.join(words): found for words in commands(README) if (found := module_and_arguments(words))}


def test_commands_are_found_as_a_shell_would_run_them():
    text = (
        '```bash\n# a comment\n$ make train ARGS="model=dcgan trainer.max_epochs=2"  # another\n'
        "python -m gan_lightning \\\n  seed=1\nmake install && make test\n```\n```python\nimport torch\n```\n"
    )
    assert commands(text) == [
        ["make", "train", "ARGS=model=dcgan trainer.max_epochs=2"],
        ["python", "-m", "gan_lightning", "seed=1"],
        ["make", "install"],
        ["make", "test"],
    ]
    assert module_and_arguments(commands(text)[0]) == ("gan_lightning", ["model=dcgan", "trainer.max_epochs=2"])
    assert module_and_arguments(["make", "install"]) is None
    with pytest.raises(AssertionError, match="neither run nor skipped: rm -rf"):
        module_and_arguments(["rm", "-rf", "/"])
    assert blocks(text, "python") == ["import torch\n"]


def test_readme_shows_how_to_train_and_to_sample():
    modules = {module for module, _ in RUN.values()}
    assert {"gan_lightning", "gan_lightning.sample"} <= modules
    assert "make train" in RUN


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The folder in which the commands run one after the other."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def run_here(monkeypatch, project):
    """Run a command in this process, which has imported everything already: `run_here("gan_lightning", [])`."""
    loggers = [logging.getLogger(name) for name in (None, "gan_lightning", "lightning.pytorch", "lightning.fabric")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    monkeypatch.chdir(project)

    def run(module, arguments):
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        module = {"gan_lightning": "gan_lightning.train"}.get(module, module)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            importlib.import_module(module).main()

    yield run
    for logger, handlers, level, propagate in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=pytest.mark.slow if "-m model=" in line else ()) for line in RUN]
)
def test_command_runs(line, run_cli, run_here, idx_data, project):
    module, arguments = RUN[line]
    small = [*SHRINK, *idx_data]
    if "--help" in arguments or "-m" in arguments or "devices" in line:  # starts processes of its own, or none
        result = run_cli(*arguments, *([] if "--help" in arguments else small), cwd=project)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stdout + result.stderr
    elif module == "gan_lightning":
        before = set(project.rglob("metrics.json"))
        run_here(module, [*arguments, *small])
        assert len(set(project.rglob("metrics.json")) - before) == 1
    else:
        if not any(project.rglob("last.ckpt")):  # this test alone: there is no run yet
            run_here("gan_lightning", small)
        run_here(module, [*arguments, *FEW.get(module, [])])


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_example_trains(code, tmp_path, monkeypatch):
    import lightning
    import torchvision.datasets

    class Mnist:
        def __init__(self, root, *args, **kwargs):
            self.data = torch.randint(256, (256, 28, 28), dtype=torch.uint8)
            self.targets = torch.zeros(256, dtype=torch.int64)

    trainers = []

    class Trainer(lightning.Trainer):
        def __init__(self, **settings):
            super().__init__(**settings | {"limit_train_batches": 2, "accelerator": "cpu", "logger": False})
            trainers.append(self)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.datasets, "MNIST", Mnist)
    monkeypatch.setattr(lightning, "Trainer", Trainer)
    exec(compile(code, "README.md", "exec"), {})
    assert trainers[0].global_step == 2


def test_python_example_is_short():
    (code,) = blocks(README, "python")
    assert len(code.strip().splitlines()) <= 6


def test_glossary_has_every_tag_and_no_other():
    logged = {
        tag for row in re.findall(r"^\s*\| (\w+/.*?) \|", Scalars.__doc__, re.MULTILINE) for tag in row.split(", ")
    }
    shown = {
        "samples/fixed",
        "samples/real",
        "samples/interpolation",
    }  # tests/test_pictures.py has them from an event file
    scored = {f"metrics/{name}" for name in (*ROWS, *ONLY_SOME)} | {"histogram/classes"}
    alarms = {f"alarm/{name}" for name in ADVICE}
    families = (
        "loss",
        "logit",
        "prob",
        "accuracy",
        "grad_norm",
        "lr",
        "progress",
        "samples",
        "metrics",
        "histogram",
        "alarm",
    )
    glossary = set(re.findall(rf"`((?:{'|'.join(families)})/\w+)`", README))
    assert (
        glossary - {"samples/epoch_0000", "samples/training"} == logged | shown | scored | alarms
    )  # less the files of the same name


def test_every_file_in_the_map_exists_and_every_module_is_in_it():
    (tree,) = [block for block in blocks(README, "") if "gan.py" in block]
    named = set()
    folder = ""
    for line in filter(None, tree.splitlines()):
        names = re.split(r"\s{2,}", line.strip())[0]  # some lines name two files
        if not line.startswith(" "):
            folder = line.split()[0].rstrip("/")
            assert (ROOT / folder).exists(), folder
            continue
        for name in re.findall(r"[\w./]+", names):
            if name.endswith((".py", "/")):
                assert (ROOT / folder / name).exists(), f"{folder}/{name}"
                named.add(name.rstrip("/"))
    modules = {path.name for path in (ROOT / "gan_lightning").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - named <= {"__init__.py", "__main__.py", "__pycache__", "py.typed"}


def test_every_choice_it_names_exists():
    from gan_lightning.files import groups, options

    for group, choice in re.findall(rf"(?<![\w.])({'|'.join(groups())})=(\w+)", README):
        assert choice in options(group), f"{group}={choice}"
    for recipe in re.findall(r"^\| `(\w+)` \|", README.partition("## Recipes")[2].partition("\n## ")[0], re.MULTILINE):
        assert recipe in options("experiment"), recipe


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {name for name in re.findall(r"`?make ([a-z-]+)", README)} <= targets


def test_every_link_into_the_project_leads_somewhere():
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_readme_is_finished_and_short():
    assert not re.findall(r"@@\w+@@", README)
    assert len(README.splitlines()) <= 250
