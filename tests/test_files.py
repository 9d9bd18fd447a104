"""Files that are whole or not there, and what they never replace."""

import errno
import os
import socket
import stat

import pytest

from gan_lightning.cli.errors import explain
from gan_lightning.files import check_suffix, output_path, written_whole


@pytest.fixture
def special(tmp_path):
    """Makes what is no file, in a folder of its own; a device is a pseudo-terminal's, never one that others use."""
    opened = []

    def make(kind):
        path = tmp_path / "x.png"
        if kind.startswith("pipe"):
            os.mkfifo(path)
        elif kind.startswith("socket"):
            opened.append(listener := socket.socket(socket.AF_UNIX))
            listener.bind(os.fspath(path))
        else:
            opened.extend(os.fdopen(number, "wb", buffering=0) for number in os.openpty())
            path.symlink_to(os.ttyname(opened[-1].fileno()))
        if kind.endswith("behind two links"):
            (tmp_path / "link").symlink_to(path)
            (path := tmp_path / "link.png").symlink_to("link")
        return path

    yield make
    for thing in opened:
        thing.close()


KINDS = ["pipe", "socket", "device", "pipe behind two links", "device behind two links"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_never_replaced(special, kind):
    path = special(kind)
    before, mode = sorted(path.parent.iterdir()), path.stat().st_mode
    with pytest.raises(ValueError, match=r"x|link\.png is a device or a pipe"), written_whole(path) as part:
        part.write_text("x")
    with pytest.raises(
        ValueError, match=r"^out=.*\.png is a device or a pipe, which a file would replace; name a file"
    ):
        output_path(str(path), path, example="images.png")
    assert sorted(path.parent.iterdir()) == before and path.stat().st_mode == mode and not stat.S_ISREG(mode)


@pytest.mark.parametrize("target", ["there", "not there yet", "of another link"])
def test_a_link_stays_one_and_its_target_is_written(tmp_path, target):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.png", tmp_path / "x.png"
    if target == "there":
        real.write_text("old")
    if target == "of another link":
        (tmp_path / "between").symlink_to(real)
    link.symlink_to(tmp_path / "between" if target == "of another link" else real)
    with written_whole(link) as part:
        part.write_text("new")
    assert link.is_symlink() and real.read_text() == "new"
    assert [file.name for file in (tmp_path / "disk").iterdir()] == ["real.png"]


def test_an_error_names_the_file_that_people_know(tmp_path):
    with pytest.raises(FileNotFoundError) as missing, written_whole(tmp_path / "x.png"):
        pass
    assert missing.value.filename == str(tmp_path / "x.png")
    with pytest.raises(OSError) as too_long, written_whole(tmp_path / ("x" * 256)) as part:
        part.write_text("x")
    assert too_long.value.filename == str(tmp_path / ("x" * 256))


@pytest.mark.parametrize("below", ["file", "file/evaluation", "file/a/b", "pipe", "pipe/evaluation"])
def test_a_folder_in_whose_way_is_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=f"^out={tmp_path}/{below}.* is not a folder; choose another place with out=…"):
        output_path(f"{tmp_path}/{below}", tmp_path, example=None)
    if "/" in below:
        with pytest.raises(ValueError, match="is not a folder"):
            output_path(f"{tmp_path}/{below}", tmp_path, example="images.png")


def test_a_path_is_shown_as_typed_and_taken_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_path("~/a/x.png", tmp_path, example="images.png") == tmp_path / "a" / "x.png"
    assert output_path(None, tmp_path / "y.png", example="images.png") == tmp_path / "y.png"
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"^out=~/a is a folder; name a file, such as out=.*/a/images\.png$"):
        output_path("~/a", tmp_path, example="images.png")


def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match=f"^out={tmp_path}/a/x.png: {tmp_path} cannot be written to; choose another"):
        output_path(f"{tmp_path}/a/x.png", tmp_path, example="images.png")


@pytest.mark.parametrize("name", [None, "", "x", "x.onnx", "x.ONNX", "run.1", ".hidden"])
def test_a_name_that_claims_no_other_format_is_taken(name):
    check_suffix(name, "onnx", {"onnx": ".onnx", "torch": ".pt2"})


def test_a_name_of_another_format_says_which_one_to_choose():
    suffixes = {"onnx": ".onnx", "torch": ".pt2"}
    with pytest.raises(ValueError, match="add format=torch"):
        check_suffix("a/x.pt2", "onnx", suffixes)
    for name in "a/x.pt", "a/x.pth", "a/x.ckpt":
        with pytest.raises(
            ValueError, match=rf"^out={name}: format=torch does not write \.\w+ files; name it a/x\.pt2 "
        ):
            check_suffix(name, "torch", suffixes)


@pytest.mark.parametrize(
    ("number", "path", "typed", "line"),
    [
        (errno.ENOENT, "/proc/x.png", ["out=/proc/x.png"], "out=/proc/x.png: no such file or directory; choose"),
        (errno.ENOENT, "/proc/x/y.png", ["seed=1", "out=/proc/x"], "out=/proc/x: /proc/x/y.png: no such file"),
        (errno.EROFS, "/sys/a/b", ["hydra.run.dir=/sys/a"], "hydra.run.dir=/sys/a: /sys/a/b: read-only file system"),
        (
            errno.EACCES,
            "/there/x",
            ["+data.root=/there", "out=/here"],
            "+data.root=/there: /there/x: permission denied",
        ),
        (errno.EACCES, "/there/x", ["out='/there/x'"], "out='/there/x': permission denied; choose another folder with"),
        (errno.ENOSPC, "/there/x", ["out=/there/x"], "out=/there/x: the disk is full ("),
        (errno.EACCES, "/run/x", ["ckpt=/run"], "/run/x: permission denied; choose another folder with out=…"),
        (errno.ENAMETOOLONG, f"/{'x' * 300}", [f"out=/{'x' * 300}"], f"out=/{'x' * 300}: file name too long; choose"),
        (errno.ENOTDIR, f"/{'x' * 300}/y", ["out=/"], f"out=/: /{'x' * 300}/y: not a directory; choose"),
        (errno.ENOSPC, f"/{'x' * 300}/y", [], f"/{'x' * 300}/y: the disk is full ("),
        (errno.EACCES, "/run/x", [], "/run/x: permission denied; choose another folder with out=…"),
    ],
)
def test_an_error_of_the_system_names_the_key_that_was_typed(number, path, typed, line):
    said = explain(OSError(number, os.strerror(number), path), overrides=typed, place="out")
    assert said.startswith(line) and "(data)" not in said
    key = line.partition("=")[0].lstrip("+") if "=" in line.partition(":")[0] else "out"
    assert f"{key}=…" in said


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder, name in (tmp_path / "file", ""), (tmp_path / "file" / "sub", f"{tmp_path}/file is "):
        with pytest.raises(OSError) as refused:
            folder.mkdir(parents=True, exist_ok=True)
        said = explain(refused.value, overrides=[f"out={folder}"], place="out")
        assert said.startswith(f"out={folder}: {name}") and "is not a folder; choose another folder with out=…" in said


def test_a_file_that_cannot_be_read_is_not_taken_for_one_to_be_written(tmp_path, monkeypatch):
    (tmp_path / "last.ckpt").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "last.ckpt"))
    line = explain(error, overrides=[f"ckpt={tmp_path}"], place="out")
    assert line == f"{tmp_path}/last.ckpt: permission denied; make it readable, or name another file"


def test_several_writers_at_once_each_write_a_whole_file(tmp_path):
    path = tmp_path / "x"
    with written_whole(path, several_writers=True) as first, written_whole(path, several_writers=True) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]  # the outer one ends last
