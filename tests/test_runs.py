import os

import pytest

from gan_lightning.runs import find_checkpoint, run_folder


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
