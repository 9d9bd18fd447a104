"""docs/add_your_own.md, followed to the letter in a copy of the project."""

import bz2
import hashlib
import re
import shlex
import shutil

import pytest
import yaml
from conftest import ROOT
from test_readme import SHRINK, blocks

TEXT = (ROOT / "docs" / "add_your_own.md").read_text(encoding="utf-8")
SECTIONS = {part.splitlines()[0]: part for part in TEXT.split("\n## ")[1:]}
WITH_SAMPLES = [name for name, part in SECTIONS.items() if blocks(part, "bash")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project to which every sample of the page is added."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("conf", "gan_lightning"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(TEXT, "python") + blocks(TEXT, "yaml"):
        first, _, content = block.partition("\n")
        file = folder / first.removeprefix("# ")
        before = file.read_text(encoding="utf-8") + "\n\n" if file.exists() else ""
        file.write_text(before + content, encoding="utf-8")
    return folder


def test_page_has_a_section_for_each_kind_of_part():
    assert list(SECTIONS) == [
        "A loss", "A penalty", "A model", "A data set that torchvision has", "A data set", "A metric"
    ]  # fmt: skip
    assert list(SECTIONS)[:5] == WITH_SAMPLES


def write_usps(folder):
    """Two small files in USPS's format: a line for each image, its label and pixels from -1 to 1."""
    folder.mkdir()
    for name, num in ("usps.bz2", 40), ("usps.t.bz2", 10):
        pixels = " ".join(f"{number + 1}:{number / 128 - 1:.4f}" for number in range(256))
        (folder / name).write_bytes(bz2.compress("".join(f"{n % 10 + 1} {pixels}\n" for n in range(num)).encode()))
    known = ", ".join(f"{file.name}: '{hashlib.md5(file.read_bytes()).hexdigest()}'" for file in folder.iterdir())
    return [f"data.root={folder}", f"data.reader.checksums={{{known}}}"]


@pytest.mark.parametrize("section", [pytest.param(name, marks=pytest.mark.slow) if name != "A loss" else name
                                     for name in WITH_SAMPLES])  # fmt: skip
def test_samples_of_the_page_train(copy, run_cli, idx_data, section):
    ((command,),) = [block.splitlines() for block in blocks(SECTIONS[section], "bash")]
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "gan_lightning"]
    data = [] if any(word.startswith("data=") for word in words) else idx_data
    if "data=usps" in words:
        data = write_usps(copy / "usps_files")
    result = run_cli(*words[3:], *SHRINK, *data, "trainer.accelerator=cpu", cwd=copy, env={"PYTHONPATH": str(copy)})
    assert result.returncode == 0, result.stderr
    (run,) = [file.parent for file in copy.rglob("metrics.json") if words[3] in file.read_text()]
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    assert re.search(r"LeastAbsolute|Lipschitz|linear|usps|squares", str(config))


def test_files_and_names_that_it_mentions_exist():
    for path in re.findall(r"`((?:gan_lightning|conf|tests|metrics)/[\w./]*\w(?:\.py|\.yaml|/))`", TEXT):
        if not path.endswith("/x.py"):
            assert (ROOT / path).exists() or (ROOT / "gan_lightning" / path).exists(), path
    for name, file in (("LOSSES", "test_losses"), ("BY_HAND", "test_losses")):
        assert f"\n{name} = " in (ROOT / "tests" / f"{file}.py").read_text()
