import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from gan_lightning.runs.folder import find_checkpoint, run_folder
from gan_lightning.runs.state import LOCK, alone_in, is_locked


def test_newest_run_is_taken_where_none_is_named(tmp_path):
    for age, name in enumerate(("new", "older", "oldest")):
        file = tmp_path / "mlp-mnist" / name / "checkpoints" / "last.ckpt"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1000 - age, 1000 - age))
    assert find_checkpoint(None, tmp_path) == tmp_path / "mlp-mnist" / "new" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("path", ["nothing", "empty"])
def test_path_without_a_checkpoint_is_named(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"ckpt={tmp_path / path}"):
        find_checkpoint(tmp_path / path)


def test_no_run_at_all_says_how_to_get_one(tmp_path):
    with pytest.raises(ValueError, match=r"ckpt is not set.*python -m gan_lightning"):
        find_checkpoint(None, tmp_path)


def test_folder_of_a_checkpoint_is_its_runs_or_where_somebody_has_copied_it(tmp_path):
    assert run_folder(tmp_path / "run" / "checkpoints" / "best.ckpt") == tmp_path / "run"
    assert run_folder(tmp_path / "downloads" / "mine.ckpt") == tmp_path / "downloads"


HOLD = """
import sys
from pathlib import Path
from gan_lightning.runs.state import alone_in

with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A process that holds the lock of a folder, and its folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process, tmp_path
        process.kill()


def test_a_folder_is_locked_for_as_long_as_a_training_is_at_work_in_it(held):
    process, folder = held
    for _ in range(3):  # asking takes nothing away
        assert is_locked(folder / LOCK)
    with pytest.raises(ValueError, match="another process is at work there"), alone_in(folder):
        pass
    process.communicate()
    assert not is_locked(folder / LOCK) and not (folder / LOCK).exists()


def test_a_killed_training_leaves_its_folder_free(held):
    process, folder = held
    process.kill()
    process.wait()
    assert (folder / LOCK).exists() and not is_locked(folder / LOCK)
    with alone_in(folder):
        assert is_locked(folder / LOCK)
    assert not is_locked(folder / LOCK)


def test_many_who_ask_at_once_do_not_take_each_other_for_a_training(tmp_path):
    (tmp_path / LOCK).touch()
    with ThreadPoolExecutor(8) as threads:
        assert not any(threads.map(is_locked, [tmp_path / LOCK] * 200))


def test_nobody_is_at_work_where_there_is_no_lock_and_none_is_made_by_asking(tmp_path):
    for file in tmp_path / LOCK, tmp_path / "not there" / LOCK:
        assert not is_locked(file)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_tried_is_taken_for_held(tmp_path, monkeypatch):
    """Of somebody else's run: what may be at work is not overwritten."""
    (tmp_path / LOCK).touch()

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", self.lock_file)

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert is_locked(tmp_path / LOCK)


@pytest.mark.parametrize("key", ["ckpt", "resume"])
def test_an_empty_path_is_said_to_be_empty(key):
    with pytest.raises(ValueError, match=f"^{key}= is empty; name a checkpoint or a run folder"):
        find_checkpoint("", key=key)


def test_a_path_that_leads_nowhere_is_shown_as_it_was_typed():
    with pytest.raises(ValueError, match=r"^ckpt=https://example.org/last.ckpt: there is no file"):
        find_checkpoint("https://example.org/last.ckpt")
