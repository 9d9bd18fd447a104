import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from lightning import Callback
from PIL import Image
from test_gan import BATCHES, fit, small_gan

from gan_lightning.callbacks.interrupt import ASK_EVERY, Interrupt

# Rank 0 takes its time to end. Lightning looks every five seconds whether a rank has failed, and then kills rank 0.
SLOW_END = "import atexit, os, time\nif 'LOCAL_RANK' not in os.environ:\n    atexit.register(time.sleep, 6)\n"


class CtrlC(Callback):
    """Presses Ctrl-C at some iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def on_train_batch_start(self, trainer, gan, batch, batch_idx):
        if gan.global_step == self.iteration:
            os.kill(os.getpid(), signal.SIGINT)


def alive(session):
    """Processes of a session that still run: (pid, command line)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append((folder.name, (folder / "cmdline").read_text().replace("\0", " ")))
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            pass
    return found


def press():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # the handler runs before the next line or two


def test_first_ctrl_c_ends_the_iteration_and_the_run(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt()
    trainer = fit(small_gan(), tmp_path, 50, callbacks=[CtrlC(BATCHES + 1), interrupt])
    assert interrupt.ending == "stopped"
    assert trainer.global_step == BATCHES + 2  # the iteration in which it was pressed is complete
    assert signal.getsignal(signal.SIGINT) is before


def test_second_ctrl_c_aborts_at_once(tmp_path):
    interrupt = Interrupt()
    interrupt.on_fit_start(SimpleNamespace(), small_gan())
    try:
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
    finally:
        interrupt.teardown(SimpleNamespace(), small_gan(), "fit")


def test_run_that_is_left_alone_catches_nothing(tmp_path):
    interrupt = Interrupt()
    fit(small_gan(), tmp_path, 2, callbacks=[interrupt])
    assert interrupt.ending is None


@pytest.fixture
def one_of_two():
    """An Interrupt in one of two processes: `ask(iteration, answer)` -> what it asked the other, and if it stops."""
    interrupt, asked = Interrupt(), []

    def ask(iteration, answer=lambda own: own):
        def reduce_boolean_decision(decision, all):
            asked.append(decision)
            return answer(decision)

        trainer = SimpleNamespace(world_size=2, should_stop=False)
        trainer.strategy = SimpleNamespace(reduce_boolean_decision=reduce_boolean_decision)
        interrupt.on_train_batch_end(trainer, SimpleNamespace(global_step=iteration), None, None, 0)
        return trainer.should_stop

    interrupt.on_fit_start(SimpleNamespace(), small_gan())
    yield interrupt, ask, asked
    interrupt.teardown(SimpleNamespace(), small_gan(), "fit")


def test_two_processes_agree_on_the_iteration_at_which_both_stop(one_of_two):
    _, ask, asked = one_of_two
    assert not ask(ASK_EVERY)
    press()
    assert not ask(ASK_EVERY + 1)  # asking costs a round trip: not now
    assert ask(2 * ASK_EVERY)
    assert asked == [False, True]


def test_ctrl_c_in_the_middle_of_the_question_is_not_lost(one_of_two):
    """Two processes spend much of their time waiting for each other's answer."""
    _, ask, _ = one_of_two

    def answer(own):
        press()
        return own

    assert not ask(ASK_EVERY, answer)  # the other one was told no: to stop here alone would leave it waiting
    assert ask(2 * ASK_EVERY)


def test_ctrl_c_that_arrives_after_the_others_is_not_the_second(one_of_two):
    """The terminal sends it to both; the slower process hears of it from the faster one first."""
    interrupt, ask, _ = one_of_two
    assert ask(ASK_EVERY, lambda own: True)
    assert interrupt.ending == "stopped"
    try:
        press()
    except KeyboardInterrupt:  # would end the whole test session
        pytest.fail("took its first Ctrl-C for the second")


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_in_a_terminal_keeps_everything_and_leaves_no_process(tmp_path, idx_data, devices):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SLOW_END if devices > 1 else "")
    command = [
        sys.executable,
        "-m",
        "gan_lightning",
        "trainer=cpu",
        f"trainer.devices={devices}",
        "metrics=none",
        *idx_data,
    ]
    settings = ["trainer.max_epochs=100000", "trainer.log_every_n_steps=4", "callbacks.console.every_n_steps=20"]
    settings += ["callbacks.pictures.num_images=4", "callbacks.pictures.every_n_epochs=5", "hydra.run.dir=run"]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [*command, *settings],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}", "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, as a terminal gives to each command
        )
    try:
        deadline = time.monotonic() + 600
        while "iteration 20 of" not in (tmp_path / "output").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "output").read_text()
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(120)
        said = (tmp_path / "output").read_text()
        assert code == 130, said
        deadline = time.monotonic() + 60
        while alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(process.pid)
    finally:
        if process.poll() is None or alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    assert "Traceback" not in said
    assert said.rstrip().endswith("interrupted")
    assert said.count("interrupted") == said.count("Ctrl-C: saving") == 1  # one process speaks
    folder = tmp_path / "run"
    record = json.loads((folder / "metrics.json").read_text())
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert record["iterations"] == saved["global_step"] >= 20  # the iteration at which it stopped
    epochs = sorted(path.name for path in (folder / "samples").glob("epoch_*.png"))
    assert epochs[0] == "epoch_0000.png"
    assert epochs[-1] == f"epoch_{-(-record['iterations'] // 4):04d}.png"  # four batches in an epoch
    with Image.open(folder / "samples" / "training.gif") as gif:
        assert gif.n_frames == len(epochs)
