"""A wheel is all a user needs: conf/ and data files included, from any folder, without this checkout."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from gan_lightning.files import conf_dir


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_a_wheel_holds_every_file_of_conf_and_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"gan_lightning/conf/{path.relative_to(conf_dir()).as_posix()}" for path in conf_dir().rglob("*.yaml")}
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gan_lightning").rglob("*.py")}
    judges = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gan_lightning/metrics/judges").glob("*.*")}
    assert conf | code | judges <= names


def test_an_installed_wheel_helps_and_trains_in_any_folder(
    wheel: Path, copy_of_environment: Path, idx_data: list[str], tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*args: str) -> str:
        command = [str(copy_of_environment), *args]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    # What `pip install --no-deps` does with a wheel of pure Python, without pip's look at the network.
    site = run("-c", "import site; print(site.getsitepackages()[0])").strip()
    zipfile.ZipFile(wheel).extractall(site)

    where = run("-c", "from gan_lightning.files import conf_dir; print(conf_dir())").strip()
    assert where == f"{site}/gan_lightning/conf"
    assert "model=dcgan" in run("-m", "gan_lightning", "--help")
    run("-m", "gan_lightning", "trainer=debug", "metrics=none", *idx_data)
    (folder,) = (tmp_path / "outputs" / "mlp-mnist").iterdir()
    assert (folder / "checkpoints" / "last.ckpt").exists()
    run("-m", "gan_lightning.sample", "n=4", "out=four.png")
    assert (tmp_path / "four.png").exists()


def lowest(*extras: str) -> list[str]:
    """`name==version` of every lower bound in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    blocks = [re.search(rf"(?ms)^{name} = \[.*?^\]", text) for name in ("dependencies", *extras)]
    bounds = [bound for block in blocks if block for bound in re.findall(r'"([\w-]+)>=([\d.]+)', block[0])]
    return [f"{name}=={version}" for name, version in bounds]


@pytest.mark.slow
@pytest.mark.network
def test_the_lowest_versions_that_are_allowed_train_and_export(
    wheel: Path, idx_data: list[str], tmp_path: Path
) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)

    def install(*packages: str) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-m", "pip", "install", "--quiet", *packages]
        return subprocess.run(command, capture_output=True, text=True, timeout=900)

    bounds = lowest("export", "sweeps")
    assert len(bounds) > 10
    tried = install("--no-deps", *(bound for bound in bounds if bound.startswith("filelock")))
    if tried.returncode:
        pytest.skip(f"pip has no index here: {tried.stderr.strip().splitlines()[-1]}")
    try:
        installed = install(str(wheel), *bounds)
    except subprocess.TimeoutExpired:
        pytest.skip("pip took longer than 15 minutes to fetch 3 GB")
    assert installed.returncode == 0, installed.stderr

    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    tpe = ["-m", "sweep=mlp_tpe", "sweep.n_trials=1", "sweep.name=tpe"]
    for args in (
        ["gan_lightning", "trainer=debug", "hydra.run.dir=run", "data.batch_size=8", *idx_data, "metrics=judge"],
        ["gan_lightning.sample", "ckpt=run", "n=4"],
        ["gan_lightning.export", "ckpt=run", "format=onnx"],
        ["gan_lightning", *tpe, "trainer=debug", "data.batch_size=8", *idx_data],
    ):
        command = [str(python), "-m", *args]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
