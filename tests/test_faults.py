"""The faults of docs/faults.md that no other file tries: nothing is lost but what came after the last checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import idx_files
import pytest
import torch
from conftest import ROOT
from lightning import Callback
from test_resume import Terminal, contents, curves, differences, train  # noqa: F401

from gan_lightning.train import main

FILL_THE_DISK = """
import resource, sys
import torch
from gan_lightning.runs.checkpoint import AtomicCheckpointIO

AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(10)}, sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # what a full disk does, at 100 kB of a file
try:
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(100_000)}, sys.argv[1])
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_full_disk_leaves_the_checkpoint_before_whole_and_no_half_one(tmp_path):
    file = tmp_path / "checkpoints" / "last.ckpt"
    result = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, file],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    number, name = result.stdout.split()
    assert int(number) > 0 and name == str(file), result.stderr
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]
    assert torch.equal(torch.load(file, weights_only=True)["weights"], torch.zeros(10))


AT_THE_THIRD_SAVE = """
import errno, io, os, shutil, signal, sys
import torch
from gan_lightning.train import main

fault, saves, save = sys.argv.pop(1), [], torch.save

def broken(content, file):
    saves.append(file)
    if len(saves) < 3:
        return save(content, file)
    shutil.copy("run/checkpoints/last.ckpt", "before.ckpt")
    if fault != "KILL":
        raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)), file.name)
    save(content, whole := io.BytesIO())
    file.write(whole.getvalue()[:5000])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = broken
main()
"""


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        pytest.param("ENOSPC", 1, ("the disk is full", "make room", "so far stays in run"), marks=pytest.mark.slow),
        pytest.param("EROFS", 1, ("read-only file system", "hydra.run.dir="), marks=pytest.mark.slow),
        ("KILL", -signal.SIGKILL, ()),
    ],
    ids=["disk full", "folder turned read-only", "kill -9"],
)
def test_a_fault_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, compose, idx_data, fault, code, words):
    settings = ["trainer=cpu", "metrics=none", "trainer.max_epochs=4", "trainer.log_every_n_steps=2", *idx_data]
    result = subprocess.run(
        [sys.executable, "-c", AT_THE_THIRD_SAVE, fault, *settings, "hydra.run.dir=run"],
        **{"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "timeout": 600},
        capture_output=True,
        text=True,
    )
    assert result.returncode == code and "Traceback" not in result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == (1 if words else 0) and all(word in lines[0] for word in words), result.stderr
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert last.read_bytes() == (tmp_path / "before.ckpt").read_bytes()

    main(compose(*settings, small=False, folder=tmp_path / "once"))
    config = compose(*settings, small=False, folder=tmp_path / "run")
    config.resume = str(last)
    main(config)
    assert differences(contents(tmp_path / "once"), contents(tmp_path / "run")) == []
    assert [file.name for file in last.parent.iterdir()] == ["last.ckpt"]  # no half one is left


@pytest.mark.parametrize("folder", ["/dev/null/run", "/sys/run"])  # the second says no to root too
def test_an_output_folder_that_cannot_be_written_is_one_line_before_training(run_cli, idx_data, folder):
    result = run_cli("trainer=debug", "metrics=none", *idx_data, f"hydra.run.dir={folder}")
    assert result.returncode != 0 and "iteration" not in result.stdout
    (line,) = result.stderr.strip().splitlines()
    assert folder in line and "hydra.run.dir" in line


class RemoveEvents(Callback):
    def on_train_batch_start(self, trainer, gan, *_):
        if gan.global_step == 5:
            for file in Path(trainer.default_root_dir).glob("events.out.tfevents.*"):
                file.unlink()


def test_event_files_that_are_removed_while_it_runs_are_missed_by_nobody(train):  # noqa: F811
    once = contents(train("once"))
    remove = "+callbacks.remove._target_=test_faults.RemoveEvents"
    run = train("parts", remove, "trainer.max_steps=10", "trainer.log_every_n_steps=1")
    assert differences(once, contents(train("parts", "trainer.log_every_n_steps=1", resume=True))) == []
    scalars, _ = curves(run)
    assert [step for step, _ in scalars["loss/discriminator"]] == list(range(6, 25))


def test_event_files_that_are_removed_are_missed_by_nobody(train):  # noqa: F811
    once = contents(train("once"))
    run = train("parts", "trainer.max_steps=10", "trainer.log_every_n_steps=1")
    for file in run.glob("events.out.tfevents.*"):
        file.unlink()
    assert differences(once, contents(train("parts", "trainer.log_every_n_steps=1", resume=True))) == []
    assert len(list(run.glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_a_data_file_that_has_changed_is_refused_before_training_goes_on(run_cli, tmp_path):
    data = idx_files.write(tmp_path / "data")
    small = ["trainer=debug", "metrics=none", *data, "hydra.run.dir=run", "trainer.max_steps=3"]
    assert run_cli(*small).returncode == 0
    before = contents(tmp_path / "run")
    file = next((tmp_path / "data").glob("*train-images*"))
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 255
    file.write_bytes(changed)
    result = run_cli("resume=run", "trainer.max_steps=-1", timeout=120)
    assert result.returncode == 1 and "(damaged)" in result.stderr
    assert differences(before, contents(tmp_path / "run")) == []


@pytest.mark.parametrize("victim", [pytest.param("first", marks=pytest.mark.slow), "second"])
def test_a_killed_process_of_two_ends_the_run_within_30_seconds(tmp_path, idx_data, victim):
    terminal = Terminal(tmp_path, idx_data)
    process = terminal.start(*terminal.settings, "trainer.devices=2", "trainer.max_epochs=100000", "hydra.run.dir=run")
    try:
        deadline = time.monotonic() + 600
        while "iteration 30 of" not in terminal.said.read_text():
            assert process.poll() is None and time.monotonic() < deadline, terminal.said.read_text()
            time.sleep(0.05)
        (child,) = children(process.pid)
        os.kill(process.pid if victim == "first" else child, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (running(process.pid) or running(child)) and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.1)
        assert not running(process.pid) and not running(child), "a process is left"
    finally:
        if running(process.pid) or running(child):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode != 0
    said = (tmp_path / "run" / "train.log").read_text()
    survivor = 1 if victim == "first" else 0
    assert f"rank {survivor} failed: another process of this run has ended" in said
    assert contents(tmp_path / "run")["global_step"] >= 28  # the last checkpoint is whole


CRASH = """
import time
from pathlib import Path
from lightning import Callback

class Crash(Callback):
    def __init__(self, rank):
        self.rank = rank

    def on_train_batch_start(self, trainer, gan, batch, batch_idx):
        if gan.global_step == 5 and trainer.global_rank == self.rank:
            Path("crashed").touch()
            raise RuntimeError("something broke")
"""


def crash(folder, rank):
    """Overrides of a run of two devices of which one crashes after five iterations."""
    (folder / "plugin.py").write_text(CRASH)
    return ["+callbacks.crash._target_=plugin.Crash", f"+callbacks.crash.rank={rank}", "trainer.devices=2"]


def assert_ends_within(process, seconds, folder):
    """A run in this folder, of which a process crashes: all of it ends, and says why."""
    try:
        deadline = time.monotonic() + 600
        while not (folder / "crashed").exists():
            assert process.poll() is None and time.monotonic() < deadline, "it never came to its fifth iteration"
            time.sleep(0.05)
        deadline = time.monotonic() + seconds
        while (left := at_work_in(folder)) and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.1)
        assert not left, "a process is left"
    finally:
        for pid in at_work_in(folder):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert process.returncode != 0
    (log,) = folder.rglob("train.log")
    said = log.read_text()
    assert "RuntimeError: something broke" in said and "Traceback" in said and "in on_train_batch_start" in said


def at_work_in(folder):
    """Processes that run in a folder; a launcher may give each a session of its own."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if running(pid) and is_in(folder, pid)]


def is_in(folder, pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_of_two_that_crashes_ends_the_run_within_30_seconds(tmp_path, idx_data, rank):
    terminal = Terminal(tmp_path, idx_data)
    process = terminal.start(*terminal.settings, *crash(tmp_path, rank), "trainer.max_epochs=100000")
    assert_ends_within(process, 30, tmp_path)
    said = terminal.said.read_text()
    assert "something broke" in said and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_under_torchrun_that_crashes_ends_the_run_within_30_seconds(tmp_path, idx_data, rank):
    terminal = Terminal(tmp_path, idx_data)
    words = [*terminal.settings, *crash(tmp_path, rank), "trainer.max_epochs=100000"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*launch, "-m", "gan_lightning", *words], cwd=tmp_path, env=env)
    assert_ends_within(process, 30, tmp_path)


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", "gan_lightning"], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def running(pid):
    """Is there such a process, and does it do more than wait for its parent to ask how it ended?"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
