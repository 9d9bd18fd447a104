"""Where things are, and how they are typed."""

import pwd
import sys
from pathlib import Path

import pytest

from gan_lightning.data import ImageDataModule
from gan_lightning.data.folder import FolderReader
from gan_lightning.files import cache_folder, python
from gan_lightning.metrics.judge import load_judge
from gan_lightning.metrics.scores import read, write


@pytest.fixture
def homeless(monkeypatch):
    """A user id that is in no list of users, as containers have it."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("folder", ["bin", "two words/bin", "it's/bin"])
def test_python_is_spelled_so_that_it_can_be_pasted(tmp_path, monkeypatch, folder):
    here, elsewhere = tmp_path / folder, tmp_path / "elsewhere"
    for place in here, elsewhere:
        place.mkdir(parents=True)
        (place / "python").write_text("#!/bin/sh\n")
        (place / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    monkeypatch.chdir(tmp_path)
    quoted = {"bin": "bin/python", "two words/bin": "'two words/bin/python'", "it's/bin": "'it'\"'\"'s/bin/python'"}
    for path, spelled in (here, "python"), (elsewhere, quoted[folder]), (tmp_path, quoted[folder]):
        monkeypatch.setenv("PATH", str(path))
        assert python() == spelled


def test_caches_follow_the_environment_and_an_empty_variable_is_none(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_LIGHTNING_DATA", str(tmp_path))
    assert cache_folder("judges") == tmp_path / "judges"
    config = compose("metrics=inception", small=False)
    assert config.metrics.cache == f"{tmp_path}/references"
    assert config.metrics.inception.weights.startswith(f"{tmp_path}/inception/")
    with pytest.raises(ValueError, match=rf"No judge for 'cats': {tmp_path}/judges/cats\.safetensors does not exist"):
        load_judge("cats")
    monkeypatch.setenv("GAN_LIGHTNING_DATA", "")
    assert cache_folder("judges") == Path("~/.cache/gan_lightning/judges")


def test_an_empty_variable_is_as_good_as_none_on_the_command_line(run_cli):
    result = run_cli("--cfg", "job", "--resolve", "--package", "data", env={"GAN_LIGHTNING_DATA": ""})
    assert "root: ~/.cache/gan_lightning/mnist" in result.stdout, result.stderr


def test_who_has_no_home_is_told_what_to_set_or_needs_none(homeless, tmp_path):
    line = r"=~/.*: this user has no home folder; set .*GAN_LIGHTNING_DATA=<folder> for all data$"
    for make in (
        lambda: ImageDataModule("~/mnist", None, (1, 28, 28)),
        lambda: FolderReader((1, 28, 28), "~/cache"),
        lambda: load_judge("~/judge.safetensors"),
    ):
        with pytest.raises(ValueError, match=line):
            make()
    assert load_judge("mnist").name == "mnist"
    assert ImageDataModule(tmp_path, None, (1, 28, 28)).root == tmp_path
    write({}, Path("~/references/x"))  # no cache is no fault
    assert read(Path("~/references/x")) is None
