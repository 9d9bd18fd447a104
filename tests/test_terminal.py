"""What a command prints: whatever the locale is, and whoever reads it."""

import ast
import io
import logging
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from rich.table import Table

from gan_lightning.cli.log import TerminalHandler
from gan_lightning.files import PACKAGE
from gan_lightning.terminal import WIDTH, open_outlets, printer, use_utf_8

COMMANDS = ["gan_lightning", *(f"gan_lightning.{name}" for name in ("sample", "evaluate", "export", "leaderboard"))]


def nobody_reads():
    """A pipe whose reader has gone away."""
    end, start = os.pipe()
    os.close(end)
    return io.FileIO(start, "w")


def full():
    """A file on a full disk; the pipe's end for reading refuses what is written to it in the same way."""

    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise OSError(28, "No space left on device")

    return Full()


@pytest.fixture
def stdout(monkeypatch):
    """`stdout(raw, encoding)` -> Python's own stdout is one that writes to `raw`, and a command takes it over."""

    def replace(raw, encoding="ascii", buffered=True):
        below = io.BufferedWriter(raw) if buffered else raw
        stream = io.TextIOWrapper(below, encoding=encoding, errors="strict", write_through=not buffered)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "__stdout__", stream)
        opened.append(raw)
        return open_outlets()

    opened = []
    yield replace
    for raw in opened:
        raw.close()


@pytest.mark.parametrize("raw", [nobody_reads, full])
@pytest.mark.parametrize("size", [1, 10, 100_000])
def test_what_nobody_can_read_is_dropped_without_an_error(stdout, raw, size):
    outlet = stdout(raw())
    handler = TerminalHandler()
    handler.handleError = lambda record: pytest.fail("a traceback for a line that was logged")
    for _ in range(3):
        print("x" * size, flush=True)
        handler.emit(logging.makeLogRecord({"msg": "a line ± of a sweep"}))
        printer().print(Table(title="a table"))
    sys.stdout.flush()
    assert outlet.is_full == (raw is full)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gb18030", "utf-8"])
@pytest.mark.parametrize("buffered", [True, False])
def test_any_text_is_printed_as_utf_8_in_any_locale(stdout, tmp_path, encoding, buffered):
    text = "2.41 ± 0.09 │ 圖片 Größe … 🦔"
    with io.FileIO(tmp_path / "said", "w") as raw:
        stdout(raw, encoding, buffered)
        print(text)
        print(os.fsdecode(b"a\xff"), flush=True)  # a file name that is no UTF-8
    assert (tmp_path / "said").read_bytes() == f"{text}\na".encode() + b"\xff\n"


def test_what_is_printed_without_a_buffer_is_there_at_once(stdout, tmp_path):
    with io.FileIO(tmp_path / "said", "w") as raw:
        stdout(raw, buffered=False)
        print("a", end="")
        assert (tmp_path / "said").read_text("utf-8") == "a"


def test_a_stream_of_somebody_else_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", notebook := io.StringIO())
    assert open_outlets() is None and sys.stdout is notebook


@pytest.mark.parametrize("columns", ["1", "20", "4000", "", "wide"])
def test_a_table_in_a_file_is_as_wide_as_it_needs(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    table = Table("network", "layer", "output shape", "parameters")
    table.add_row("discriminator", "ConvTranspose2d", "1024 x 28 x 28", "12,345,678")
    shown = io.StringIO()
    printer(file=shown).print(table)
    assert "discriminator │ ConvTranspose2d │ 1024 x 28 x 28 │ 12,345,678" in shown.getvalue()
    assert max(map(len, shown.getvalue().splitlines())) <= WIDTH


def run(words, tmp_path, **env):
    """A line of shell, and all it says."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, **env}
    return subprocess.run(["bash", "-c", words], cwd=tmp_path, env=env, capture_output=True, timeout=120)


ENDS = {
    "": 0,
    "| head -1": 0,
    "| true": 0,
    "2>&1 | true": 0,
    ">&-": 0,
    "2>&-": 0,
    ">&- 2>&- <&-": 0,
    "> /dev/full": 1,
    "> /dev/full 2>&1": 1,
}


@pytest.mark.parametrize("module", COMMANDS[:2])
def test_help_ends_well_whoever_reads_it(tmp_path, module):
    for end, code in ENDS.items():
        result = run(f'"$PYTHON" -m {module} --help {end}; exit ${{PIPESTATUS[0]}}', tmp_path)
        said = result.stderr.decode().splitlines()
        assert result.returncode == code and b"Traceback" not in result.stdout, (end, said)
        assert len(said) == (1 if end == "> /dev/full" else 0), (end, said)
        assert "the output ends early: No space left" in said[0] if said else True


@pytest.mark.parametrize("settings", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii:strict"}])
def test_help_and_a_mistake_are_the_same_in_a_terminal_that_is_not_utf_8(tmp_path, settings):
    for words in "--help", "modle=Größe", "modle=圖片":
        here, there = (run(f'"$PYTHON" -m gan_lightning {words}', tmp_path, **env) for env in ({}, settings))
        assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr), words


@pytest.mark.slow
def test_a_run_is_whole_in_a_folder_that_the_locale_cannot_name(tmp_path, idx_data):
    """TensorBoard writes its event file to a name in UTF-8."""
    (place := tmp_path / "Größe 圖片").mkdir()
    words = shlex.join(["-m", "gan_lightning", "trainer=debug", "metrics=none", *idx_data, "hydra.run.dir=run"])
    result = run(f'"$PYTHON" {words}', place, LC_ALL="C", PYTHONUTF8="0")
    assert result.returncode == 0, result.stderr
    assert list((place / "run").glob("events.out.tfevents.*")) and (place / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("encoding", "module", "mode", "anew"),
    [
        *(("ascii", "gan_lightning.sample", "0", True), ("iso8859-1", "gan_lightning.__main__", None, True)),
        *(("utf-8", "gan_lightning.sample", None, False), ("ascii", "pytest.__main__", None, False)),
        *(("ascii", None, None, False), ("ascii", "gan_lightning.sample", "1", False)),
    ],
)
def test_a_command_is_started_anew_where_the_locale_is_not_utf_8_and_nothing_else_is(
    monkeypatch, encoding, module, mode, anew
):
    started = []
    monkeypatch.setattr(os, "execv", lambda *words: started.append(words))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "gan_lightning.sample", "n=4"])
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=module and SimpleNamespace(name=module)))
    monkeypatch.setenv("PYTHONUTF8", mode) if mode else monkeypatch.delenv("PYTHONUTF8", raising=False)
    use_utf_8()
    words = [sys.executable, "-X", "utf8", "-m", "gan_lightning.sample", "n=4"]
    assert started == ([(sys.executable, words)] if anew else [])


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node


def test_every_text_file_is_opened_with_its_encoding():
    """Else it would be the locale's."""
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for name, call in calls(ast.parse(file.read_text(encoding="utf-8"))):
            words = {word.arg for word in call.keywords}
            modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            binary = any(set(mode) <= set("rwab+") and "b" in mode for mode in modes)
            outside = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in (
                *("Image", "tarfile", "os", "gzip", "zipfile", "tempfile"),
            )
            if name in ("open", "read_text", "write_text", "NamedTemporaryFile") and not (
                binary or outside or {"encoding", None} & words
            ):
                wrong.append(f"{file.relative_to(PACKAGE)}:{call.lineno}: {ast.unparse(call)}")
            if name in ("run", "Popen", "check_output", "FileHandler") and "text" in words and "encoding" not in words:
                wrong.append(f"{file.relative_to(PACKAGE)}:{call.lineno}: {ast.unparse(call)[:80]}")
    assert wrong == []


def test_no_line_of_code_is_for_one_system_alone():
    """`import fcntl` would end every command on Windows."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {"fcntl", "termios", "pty", "resource", "pwd", "grp"} & set(names), f"{file}:{node.lineno}"
