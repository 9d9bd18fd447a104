"""A run that is stopped and resumed ends as one that was not: every number in its last checkpoint is the same."""

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from lightning import Callback
from lightning.pytorch.callbacks import Timer
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_lightning.cli.errors import is_bug
from gan_lightning.runs.resume import AtEnd, resumed_overrides, save_end
from gan_lightning.train import main

EPOCH, EPOCHS = 8, 3  # iterations; 512 images in batches of 64
TOTAL = EPOCH * EPOCHS
SIZE = ("data.batch_size=64", f"trainer.max_epochs={EPOCHS}", f"trainer.limit_train_batches={EPOCH}")
WATCHED = ("metrics=judge", "metrics.num_samples=512", "metrics.cache=null", "trainer.check_val_every_n_epoch=1")
RECIPES = {
    "default": (),
    "dcgan": (
        *("model=dcgan", "model.generator.base_channels=4", "model.discriminator.base_channels=4"),
        *("model.discriminator.batch_norm=true", "penalty=none"),
    ),
    "critic": ("n_critic=5", "penalty=none"),
    "day22": ("experiment=mlp_day22", "data.batch_size=64", "trainer.max_steps=-1"),
    "steadied": (
        *("loss=relativistic", "penalty=r1_r2", "+schedule@penalty.schedule=cosine", "augment=diffaugment"),
        *("model.discriminator.spectral_norm=true", "model.discriminator.minibatch_std=true"),
    ),
    "wgan": ("loss=wasserstein", "penalty=gradient_penalty", "n_critic=2"),
    "schedule": (
        *("schedule=cosine", "schedule.warmup=3", "max_gradient_norm=0.5", "reuse_fake=true"),
        *("+schedule@optimizer.beta2_schedule=cosine", "optimizer.beta2_schedule={final: 0.1, until: 16}"),
    ),
}


@pytest.fixture
def train(compose, tmp_path):
    """`train("once", ...)` trains in the folder `once`, as from the command line; with resume=True it goes on there."""

    def run(name, *overrides, resume=False):
        folder = tmp_path / name
        config = compose(*SIZE, *overrides, folder=folder)
        if resume:
            config.resume = str(folder / "checkpoints" / "last.ckpt")
        else:  # as Hydra does
            (folder / ".hydra").mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / ".hydra" / "config.yaml")
        main(config)
        return folder

    return run


class StopAt(Callback):
    """Ends a run after an iteration as Ctrl-C does; `keep` gets a copy of the last checkpoint from before."""

    def __init__(self, iteration, keep=None):
        self.iteration, self.keep = iteration, keep

    def on_train_batch_end(self, trainer, gan, *_):
        if gan.global_step == self.iteration:
            trainer.should_stop, trainer.limit_val_batches = True, 0
            if self.keep:
                shutil.copy(f"{trainer.default_root_dir}/checkpoints/last.ckpt", self.keep)


class Spy(Callback):
    """Notes what metrics.json says of a run that has trained, and has not written its end yet."""

    def on_train_end(self, trainer, *_):
        folder = Path(trainer.default_root_dir)
        (folder / "seen").write_text(json.loads((folder / "metrics.json").read_text())["state"])


def stop_at(iteration, **settings):
    settings = {"_target_": "test_resume.StopAt", "iteration": iteration, **settings}
    return [f"+callbacks.stop.{key}={value}" for key, value in settings.items()]


def contents(folder):
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    del checkpoint["callbacks"]["Checkpoints"]["seconds"]
    del checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]  # counts what was watched
    return checkpoint


def differences(a, b, path=""):
    """Where two nests of containers and tensors differ, by a single bit or more."""
    if type(a) is not type(b):
        return [path]
    if isinstance(a, dict):
        found = [] if a.keys() == b.keys() else [f"{path}: {a.keys() ^ b.keys()}"]
        return found + [line for key in a.keys() & b.keys() for line in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        found = [] if len(a) == len(b) else [f"{path}: {len(a)} and {len(b)}"]
        return found + [
            line for i, (x, y) in enumerate(zip(a, b, strict=False)) for line in differences(x, y, f"{path}[{i}]")
        ]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if same else [path]


# --- Bit for bit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "stop"),
    [
        *(("default", 3), ("default", EPOCH), ("default", 13), ("default", TOTAL - 1)),
        *((recipe, 13) for recipe in RECIPES if recipe != "default"),
    ],
)
def test_stopped_and_resumed_is_bit_equal_to_one_run(train, recipe, stop):
    """Weights, averaged weights, optimizers, place in the data, loops: all that a checkpoint holds."""
    once = contents(train("once", *RECIPES[recipe]))
    assert once["global_step"] == TOTAL
    stopped = contents(train("parts", *RECIPES[recipe], *stop_at(stop)))
    assert stopped["global_step"] == stop and differences(once, stopped)
    assert differences(once, contents(train("parts", *RECIPES[recipe], resume=True))) == []


@pytest.mark.parametrize("name", ["best", "within"])
def test_any_checkpoint_can_be_resumed_not_the_last_one_only(train, tmp_path, name):
    """best.ckpt is written by another hook than last.ckpt, and that within an epoch by a third."""
    once = contents(train("once", *WATCHED))
    kept = tmp_path / "kept.ckpt"
    run = train("parts", *WATCHED, "callbacks.checkpoint.every_n_steps=5", *stop_at(12, keep=kept))
    file = run / "checkpoints" / "best.ckpt" if name == "best" else kept
    assert torch.load(file, weights_only=True)["global_step"] == (EPOCH if name == "best" else 10)
    shutil.copy(file, run / "checkpoints" / "last.ckpt")
    assert differences(once, contents(train("parts", *WATCHED, resume=True))) == []


def test_a_run_can_be_resumed_many_times(train):
    once = contents(train("once"))
    train("parts", "trainer.max_steps=1")
    for stop in (2, 7, 8, 9, 16, 20):
        train("parts", f"trainer.max_steps={stop}", resume=True)
    assert differences(once, contents(train("parts", resume=True))) == []


# --- What is seen of it ----------------------------------------------------------------------------------------


def curves(folder):
    """Tag -> [(step, value)], and of pictures tag -> [step], over all event files of a run, as TensorBoard shows it."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    speed = scalars["progress/images_per_second"]
    scalars["progress/images_per_second"] = [(step, value > 0) for step, value in speed]  # no two runs have the same
    return scalars, {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


@pytest.mark.parametrize(("n_critic", "every"), [(1, 1), (5, 2)])
def test_curves_go_on_without_a_gap_or_a_step_twice(train, n_critic, every):
    """Also where the run went on after its last checkpoint, and died: what it logged then is dropped."""
    settings = (f"n_critic={n_critic}", f"trainer.log_every_n_steps={every}", "callbacks.alarms.patience=2", *WATCHED)
    once, pictures = curves(train("once", *settings))
    run = train("parts", *settings, *stop_at(11))
    early = (run / "checkpoints" / "last.ckpt").read_bytes()
    train("parts", *settings, *stop_at(21), resume=True)  # not an end that a user sees: the kill comes now
    (run / "checkpoints" / "last.ckpt").write_bytes(early)
    train("parts", *settings, resume=True)
    parts, parts_pictures = curves(run)
    assert [step for step, _ in once["loss/discriminator"]] == list(range(every, TOTAL + 1, every))
    assert [step for step, _ in once["metrics/fid"]] == [EPOCH, 2 * EPOCH, 3 * EPOCH]
    assert parts.keys() == once.keys()
    for tag, points in once.items():
        assert parts[tag] == points, tag
    assert parts_pictures.pop("samples/real") == pictures.pop("samples/real") == [0]
    for tag, steps in pictures.items():
        assert parts_pictures[tag] == sorted([*steps, 11]), tag  # one more where it stopped


KILLED = """
import os, signal, sys
from gan_lightning.callbacks.saving import Checkpoints
from gan_lightning.train import main

at, save = int(sys.argv.pop(1)), Checkpoints.save

def save_and_die(self, trainer, name):
    save(self, trainer, name)
    if trainer.global_step == at:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_die
main()
"""


@pytest.mark.parametrize("at", [pytest.param(5, id="within"), pytest.param(EPOCH, id="end", marks=pytest.mark.slow)])
def test_curves_have_no_gap_where_the_run_was_killed_right_behind_a_save(tmp_path, compose, idx_data, at):
    settings = ["trainer=cpu", "metrics=none", "trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_steps=5"]
    settings += [*idx_data, *SIZE[:2], "n_critic=3", "hydra.run.dir=parts"]
    command = [sys.executable, "-c", KILLED, str(at), *settings]
    killed = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=600)
    assert killed.returncode == -signal.SIGKILL
    main(compose(*settings[:-1], small=False, folder=tmp_path / "once"))
    config = compose(*settings[:-1], small=False, folder=tmp_path / "parts")
    config.resume = str(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert torch.load(config.resume, weights_only=True)["global_step"] == at
    main(config)
    assert curves(tmp_path / "parts") == curves(tmp_path / "once")


def test_csv_of_before_is_kept(train):
    train("run", "logger=csv", "trainer.log_every_n_steps=1", "trainer.max_steps=10")
    run = train("run", "logger=csv", "trainer.log_every_n_steps=1", resume=True)
    tables = [
        (run / "csv" / name).read_text().splitlines() for name in ("metrics.csv", "from_iteration_10/metrics.csv")
    ]
    steps = [int(line.split(",")[table[0].split(",").index("step")]) for table in tables for line in table[1:]]
    assert sorted(set(steps)) == list(range(1, TOTAL + 1))


def test_seconds_and_iterations_are_those_of_the_whole_run(train, caplog):
    caplog.set_level(logging.INFO, "gan_lightning.train")
    first = json.loads((train("run", "trainer.max_steps=10") / "metrics.json").read_text())
    both = json.loads((train("run", resume=True) / "metrics.json").read_text())
    assert (both["iterations"], both["images"]) == (TOTAL, TOTAL * 64)
    assert both["seconds"] > first["seconds"]
    assert f"\n{TOTAL - 10} iterations in " in caplog.text and f" ({TOTAL} in all), " in caplog.text


def test_a_finished_run_says_how_to_go_on(train):
    train("run")
    with pytest.raises(AtEnd, match=rf"is at its end, trainer\.max_epochs={EPOCHS}; .*trainer\.max_epochs=\d+"):
        train("run", resume=True)
    run = train("run", "trainer.max_epochs=4", resume=True)
    assert contents(run)["global_step"] == 4 * EPOCH
    # For the next time that it is resumed.
    assert OmegaConf.load(run / ".hydra" / "config.yaml").trainer.max_epochs == 4


@pytest.mark.parametrize("end", [5, EPOCH], ids=["within an epoch", "at its end"])
def test_a_run_resumed_for_one_iteration_keeps_its_new_end_and_forgets_the_earlier_one(train, end):
    train("run", f"trainer.max_steps={end}")
    run = train("run", f"trainer.max_steps={end + 1}", "+callbacks.spy._target_=test_resume.Spy", resume=True)
    assert (run / "seen").read_text() == "running"
    assert OmegaConf.load(run / ".hydra" / "config.yaml").trainer.max_steps == end + 1


class Late(Callback):
    """Makes Lightning's Timer believe that hours have gone by."""

    def on_train_batch_end(self, trainer, gan, *_):
        if gan.global_step == 3:
            next(callback for callback in trainer.callbacks if isinstance(callback, Timer))._offset += 7200


def test_a_run_ended_by_its_time_is_at_its_end_keeps_its_scores_and_goes_on_with_more_time(train, caplog):
    caplog.set_level(logging.INFO)
    settings = (*WATCHED, "+callbacks.late._target_=test_resume.Late")
    run = train("run", *settings, "+trainer.max_time='00:01:00:00'")
    record = json.loads((run / "metrics.json").read_text())
    assert (record["state"], record["iterations"], record["scored"]["iteration"]) == ("done", 3, 3)
    assert "ended early: trainer.max_time is over" in caplog.text
    with pytest.raises(
        ValueError, match=r"the run is at its end, trainer\.max_time=00:01:00:00; further: a longer one"
    ):
        train("run", *settings, "+trainer.max_time='00:01:00:00'", resume=True)
    assert json.loads((run / "metrics.json").read_text()) == record
    assert "trainer.max_time=00:09:00:00" in resumed_overrides([f"resume={run}", "trainer.max_time=00:09:00:00"])[1]
    train("run", *settings, "+trainer.max_time='00:09:00:00'", resume=True)
    assert json.loads((run / "metrics.json").read_text())["iterations"] == TOTAL
    assert OmegaConf.load(run / ".hydra" / "config.yaml").trainer.max_time == "00:09:00:00"


def test_scores_of_before_stay_where_a_resumed_run_comes_to_no_new_ones(train):
    run = train("run", *WATCHED, *stop_at(EPOCH + 2))
    first = json.loads((run / "metrics.json").read_text())
    train("run", *WATCHED, *stop_at(EPOCH + 4), resume=True)
    second = json.loads((run / "metrics.json").read_text())
    assert second["iterations"] == EPOCH + 4 and second["scored"] == first["scored"]
    assert second["metrics/fid"] == first["metrics/fid"]


@pytest.mark.filterwarnings("ignore:`max_epochs` was not set")
def test_a_run_without_an_end_can_be_resumed(train):
    train("run", "trainer.max_epochs=null", *stop_at(3))
    run = train("run", "trainer.max_epochs=null", *stop_at(5), resume=True)
    assert contents(run)["global_step"] == 5


def test_a_finished_run_whose_schedule_has_fallen_is_not_told_to_go_on(train):
    train("run", "schedule=linear")
    with pytest.raises(ValueError, match=r"is at its end.*; its schedule has reached its end$"):
        train("run", "schedule=linear", resume=True)


# --- After a signal, from the command line -----------------------------------------------------------------------


class Terminal:
    """Starts a run as a user does, and ends it as a user, a scheduler or a power cut does."""

    def __init__(self, folder, data):
        self.folder, self.data = folder, data
        self.settings = ["trainer=cpu", "metrics=none", "callbacks.pictures.every_n_epochs=50", *data]
        self.settings += ["trainer.max_epochs=8", "data.batch_size=32", "callbacks.checkpoint.every_n_steps=7"]
        self.settings += ["model.generator.hidden=[16]", "model.discriminator.hidden=[16]"]
        self.settings += ["callbacks.console.every_n_steps=10", "callbacks.pictures.num_images=4"]

    def start(self, *words):
        command = [sys.executable, "-m", "gan_lightning", *words]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.said = self.folder / "output"
        with self.said.open("w") as output:
            # A process group of its own, as a terminal gives to each command.
            return subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def run(self, *words):
        assert self.start(*words).wait(600) == 0, self.said.read_text()

    def end(self, process, number, after):
        """Send a signal to all of its processes once it has said something; return the exit code."""
        deadline = time.monotonic() + 600
        while after not in self.said.read_text():
            assert process.poll() is None and time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.02)
        os.killpg(process.pid, number)
        return process.wait(120)


@pytest.fixture
def terminal(tmp_path, idx_data):
    return Terminal(tmp_path, idx_data)


@pytest.mark.parametrize(
    ("number", "devices", "code"),
    [
        pytest.param(signal.SIGINT, 1, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 1, 130, marks=pytest.mark.slow),  # the terminal is closed
        (signal.SIGKILL, 1, -signal.SIGKILL),
        pytest.param(signal.SIGINT, 2, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 2, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_ended_by_a_signal_resumes_to_the_same_weights(terminal, tmp_path, number, devices, code):
    settings = [*terminal.settings, f"trainer.devices={devices}"]
    terminal.run(*settings, "hydra.run.dir=once")
    process = terminal.start(*settings, "hydra.run.dir=parts")
    assert terminal.end(process, number, after="iteration 30 of") == code, terminal.said.read_text()
    stopped = contents(tmp_path / "parts")["global_step"]
    assert 28 <= stopped < 8 * 16
    assert stopped % 7 == 0 or stopped % 16 == 0 or number != signal.SIGKILL
    terminal.run("resume=parts")
    assert differences(contents(tmp_path / "once"), contents(tmp_path / "parts")) == []
    record = json.loads((tmp_path / "parts" / "metrics.json").read_text())
    assert record["iterations"] == 8 * 16
    assert "resume" not in record["command"] and "trainer.max_epochs=8" in record["command"]
    # The run has one folder, and its config is that of its start.
    assert not (tmp_path / "outputs").exists()
    assert OmegaConf.load(tmp_path / "parts" / ".hydra" / "config.yaml").resume is None


@pytest.mark.slow
def test_twenty_kills_at_random_points_change_nothing(terminal, tmp_path):
    draw = random.Random(0)
    terminal.settings += ["trainer.max_epochs=200", "callbacks.checkpoint.every_n_steps=3"]
    terminal.run(*terminal.settings, "hydra.run.dir=once")
    process = terminal.start(*terminal.settings, "hydra.run.dir=parts")
    terminal.end(process, signal.SIGKILL, after="iteration 10 of")
    places = []
    for _ in range(19):
        process = terminal.start("resume=parts")
        deadline = time.monotonic() + 600
        while "real images" not in terminal.said.read_text():  # it trains from here on
            assert process.poll() is None and time.monotonic() < deadline, terminal.said.read_text()
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        places.append(contents(tmp_path / "parts")["global_step"])
    assert places == sorted(places) and places[-1] > places[0]  # it gets on, and loses nothing that was saved
    terminal.run("resume=parts")
    assert differences(contents(tmp_path / "once"), contents(tmp_path / "parts")) == []


# --- What it may not change ------------------------------------------------------------------------------------


@pytest.fixture
def saved(compose, tmp_path):
    """A run folder with a config and an empty checkpoint: what the command line looks at."""

    def make(*overrides):
        (tmp_path / "a run, saved" / ".hydra").mkdir(parents=True)
        (tmp_path / "a run, saved" / "checkpoints").mkdir()
        (tmp_path / "a run, saved" / "checkpoints" / "last.ckpt").touch()
        OmegaConf.save(compose(*overrides), tmp_path / "a run, saved" / ".hydra" / "config.yaml")
        choices = {"hydra": {"runtime": {"choices": {"model": "mlp", "penalty": "r1"}}}}
        OmegaConf.save(choices, tmp_path / "a run, saved" / ".hydra" / "hydra.yaml")
        return f"resume='{tmp_path}/a run, saved'"

    return make


@pytest.mark.parametrize(
    "override",
    [
        *("seed=1", "model=dcgan", "data.batch_size=32", "optimizer.generator.lr=1e-5", "trainer.devices=2"),
        *("ema=null", "~penalty", "trainer.precision=64-true", "+loss.unheard_of=1", "trainer=cpu", "n_critic=2"),
    ],
)
def test_what_would_make_it_another_run_is_refused_by_name(saved, override):
    with pytest.raises(ValueError, match="would make it another run") as refused:
        resumed_overrides([saved(), override, "trainer.max_epochs=100"])
    assert f" {override} would" in str(refused.value) and "max_epochs" not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        *("trainer.max_epochs=100", "trainer.max_steps=100", "trainer.log_every_n_steps=7"),
        "callbacks.console.every_n_steps=5",
        *("data.root=/elsewhere", "metrics.num_samples=600", "trainer.enable_model_summary=true"),
        *("data.reader.npm=null", "control.early_stopping.patience=3"),
    ],
)
def test_what_only_watches_may_change_and_the_end_may_grow(saved, override):
    folder, overrides = resumed_overrides([saved(), override])
    assert OmegaConf.load(folder / "config.yaml").trainer.max_epochs == 2  # reading a command line writes nothing
    assert folder.name == ".hydra" and overrides[0] == override and len(overrides) == 4


@pytest.mark.parametrize("place", ["elsewhere", "/elsewhere", "../a", "'a b'"])
def test_another_folder_is_refused(saved, place):
    with pytest.raises(ValueError, match=f"continues in its own folder; leave out hydra.run.dir={place}"):
        resumed_overrides([saved(), f"hydra.run.dir={place}"])


def test_another_folder_for_what_the_trainer_writes_is_refused(saved):
    with pytest.raises(ValueError, match=r"continues in its own folder; leave out trainer.default_root_dir=elsewhere"):
        resumed_overrides([saved(), "trainer.default_root_dir=elsewhere"])


@pytest.mark.parametrize(("key", "end"), [("max_time", None), ("max_time", "00:02:00:00"), ("max_steps", 7)])
def test_an_end_that_is_lifted_or_moved_is_kept_for_the_next_time(saved, key, end):
    file = Path(saved().partition("=")[2].strip("'")) / ".hydra" / "config.yaml"
    config = OmegaConf.load(file)
    OmegaConf.update(config, "trainer.max_time", "00:01:00:00", force_add=True)
    OmegaConf.save(config, file)
    OmegaConf.update(config, f"trainer.{key}", end)
    config.resume = str(file.parent.parent / "checkpoints" / "last.ckpt")
    save_end(Path(config.resume), {key: end})
    assert OmegaConf.load(file).trainer[key] == end


@pytest.mark.parametrize("override", ["seed=0", "model=mlp", "penalty.weight=2.4", "trainer.max_epochs=2"])
def test_what_says_the_same_is_left_out(saved, override):
    _, overrides = resumed_overrides([saved(), override])
    assert len(overrides) == 3


@pytest.mark.parametrize(
    "schedule",
    [
        "schedule=linear",
        "schedule=cosine",
        "+schedule@penalty.schedule=cosine",
        "+schedule@optimizer.beta2_schedule=cosine",
    ],
)
@pytest.mark.parametrize("end", ["trainer.max_epochs=100", "trainer.max_steps=100"])
def test_the_end_may_not_move_where_a_schedule_depends_on_it(saved, schedule, end):
    with pytest.raises(ValueError, match=rf": {end} would make it another run"):
        resumed_overrides([saved(schedule), end])


def test_the_end_may_move_where_every_schedule_has_its_own(saved):
    burn_in = ["schedule=cosine", "schedule.until=5", "+schedule@penalty.schedule=linear", "penalty.schedule.until=5"]
    _, overrides = resumed_overrides([saved(*burn_in), "trainer.max_epochs=100"])
    assert "trainer.max_epochs=100" in overrides


@pytest.mark.parametrize("flag", ["--config-path=.", "-m"])
def test_flags_that_make_no_sense_with_it_are_refused(saved, run_cli, flag):
    result = run_cli(flag, saved())
    assert result.returncode == 2 and f"leave out {flag.partition('=')[0]}" in result.stderr


def test_other_flags_are_kept(saved, run_cli):
    """`--cfg job` prints the config of the run, and does not train."""
    result = run_cli("--cfg", "job", saved("seed=7"), "trainer.log_every_n_steps=3")
    assert result.returncode == 0, result.stderr
    assert "seed: 7" in result.stdout and "log_every_n_steps: 3" in result.stdout


def test_a_comma_that_is_not_quoted_is_not_taken_for_several_runs(tmp_path):
    with pytest.raises(ValueError, match="a comma separates several runs"):
        resumed_overrides([f"resume={tmp_path}/a,{tmp_path}/b"])


def test_two_trainings_in_one_folder_are_refused(train, tmp_path):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(ValueError, match="another process is at work there"):
        train("run")


def test_nothing_to_resume_is_named(tmp_path):
    assert resumed_overrides(["seed=1"]) is None and resumed_overrides(["resume=null"]) is None
    with pytest.raises(ValueError, match=f"^resume={tmp_path}: there is no file .*last.ckpt"):
        resumed_overrides([f"resume={tmp_path}"])
    (tmp_path / "mine.ckpt").touch()
    with pytest.raises(ValueError, match=r"mine\.ckpt is not in a run folder"):
        resumed_overrides([f"resume={tmp_path}/mine.ckpt"])


BROKEN = ("5", "word", "[1, 2]", "seed: [1,", "a: ${", "\x00", "[" * 100_000, b"\xff\xfe")


@pytest.mark.parametrize("name", ["config.yaml", "hydra.yaml", "overrides.yaml"])
def test_a_file_of_the_run_that_is_broken_is_named_in_one_line(saved, tmp_path, name):
    wanted, file = saved(), tmp_path / "a run, saved" / ".hydra" / name
    for content in BROKEN:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        before = files(tmp_path)
        with pytest.raises(ValueError, match="^.*" + re.escape(str(file))) as refused:
            resumed_overrides([wanted, "seed=0"])
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
        assert files(tmp_path) == before


@pytest.mark.parametrize("key", ["n_critic", "optimizer.generator", "data", "trainer.devices"])
def test_a_key_that_the_config_of_the_run_lacks_is_named_with_its_file(written, tmp_path, monkeypatch, capsys, key):
    shutil.copytree(written, tmp_path / "run")
    file = tmp_path / "run" / ".hydra" / "config.yaml"
    config = OmegaConf.load(file)
    parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
    del parent[key.rpartition(".")[2]]
    OmegaConf.save(config, file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan_lightning", "resume=run", "trainer.max_steps=30"])
    with pytest.raises(SystemExit):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: run/.hydra/config.yaml lacks {key}, which every run has"


# --- A checkpoint that no run has written ------------------------------------------------------------------------


def without(*keys):
    """Remove what a checkpoint has at these keys."""

    def change(checkpoint):
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        del checkpoint[keys[-1]]

    return change


def put(value, *keys):
    """Put a value, or what becomes of the one there, to these keys of a checkpoint."""

    def change(checkpoint):
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[keys[-1]] = value(checkpoint[keys[-1]]) if callable(value) else value

    return change


ADAM = ("optimizer_states", 0, "state", 0)
FIT = ("loops", "fit_loop")
WEIGHT = "generator.layers.0.weight"
DAMAGED = {  # (what is changed, what is said)
    # Adam's kernel reads beyond the end of such a tensor: the process dies of it, without a word.
    "short Adam state": (
        put(lambda old: old[:1].clone(), *ADAM, "exp_avg"),
        r"exp_avg of a weight is torch\.float32 \(1, ",
    ),
    "Adam state of one number": (
        put(torch.tensor(0.0), *ADAM, "exp_avg_sq"),
        r"exp_avg_sq of a weight is .* \(\) in it",
    ),
    "steps of each weight": (put(torch.zeros(3), *ADAM, "step"), r"step of a weight is torch.float32 \(3,\)"),
    "Adam state of whole numbers": (put(torch.Tensor.long, *ADAM, "exp_avg"), r"exp_avg of a weight is torch\.int64"),
    # Training would go on with wrong numbers.
    "states in another order": (put(lambda old: old[::-1], *ADAM[:2], "param_groups", 0, "params"), "params of an"),
    "another learning rate": (
        put(5.0, *ADAM[:2], "param_groups", 0, "initial_lr"),
        r"initial_lr of an .* is 5\.0, not",
    ),
    "another beta2": (put((0.0, 0.5), *ADAM[:2], "param_groups", 0, "initial_betas"), "initial_betas of an optimizer"),
    "another place in the data": (
        put([{"iteration": 7}], *FIT, "state_dict", "combined_loader"),
        "not at the same place",
    ),
    "another iteration": (put(7, "global_step"), "not at the same place"),
    "epochs are a text": (put("x", *FIT, "epoch_progress", "current", "completed"), "int"),
    # PyTorch or Lightning would stop somewhere in the middle.
    "Adam state without a mean": (without(*ADAM, "exp_avg"), "it lacks exp_avg"),
    "state of another weight": (put(lambda old: {99: old[0]}, *ADAM[:-1]), "optimizer state of other weights"),
    "no parameter groups": (put([], *ADAM[:2], "param_groups"), "optimizer state of other weights"),
    "states of one optimizer": (put(lambda old: old[:1], "optimizer_states"), "the states of 1 optimizers, not of 2"),
    "no optimizers": (without("optimizer_states"), "it lacks optimizer_states"),
    "callbacks in a list": (put([], "callbacks"), "no attribute"),
    "no loops": (without("loops"), "it lacks loops"),
    "no version of Lightning": (without("pytorch-lightning_version"), "pytorch-lightning_version"),
    "best is a text": (put("x", "callbacks", "Checkpoints", "best"), "str"),
    "no seconds": (without("callbacks", "Checkpoints", "seconds"), "it lacks seconds"),
    "curves are a list": (put(["x"], "callbacks", "Scalars"), "list"),
    "weight is missing": (without("state_dict", WEIGHT), f"lacks {WEIGHT}"),
    "weight of another shape": (put(lambda old: old[:, :7].clone(), "state_dict", WEIGHT), rf"{WEIGHT} is \(\d+, 7\)"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, idx_data):
    """A run that has stopped within its second epoch."""
    folder = tmp_path_factory.mktemp("written")
    terminal = Terminal(folder, idx_data)
    beta2 = ["+schedule@optimizer.beta2_schedule=cosine", "optimizer.beta2_schedule={final: 0.1, until: 100}"]
    terminal.run(*terminal.settings, *beta2, "trainer.max_steps=20", "hydra.run.dir=run")
    return folder / "run"


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_checkpoint_that_no_run_has_written_is_refused_and_nothing_is_overwritten(written, compose, tmp_path, kind):
    compose()  # what Hydra has at hand in a job
    change, message = DAMAGED[kind]
    config = damage(written, tmp_path, change)
    before = files(tmp_path / "run")
    with pytest.raises(ValueError, match=rf"^resume={config.resume} cannot be resumed: .*{message}") as refused:
        main(config)
    assert not is_bug(refused.value) and str(refused.value).isprintable()
    assert before.items() <= files(tmp_path / "run").items()


def test_a_checkpoint_that_would_crash_the_process_is_one_line_on_the_terminal(written, tmp_path, run_cli):
    damage(written, tmp_path, DAMAGED["short Adam state"][0])
    before = files(tmp_path / "run")
    result = run_cli("resume=run", "trainer.max_steps=30")
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: resume=run/checkpoints/last.ckpt cannot be resumed: exp_avg of a weight")
    assert {name for name, content in files(tmp_path / "run").items() if content != before.get(name)} == {"train.log"}


def test_a_truncated_checkpoint_is_named_and_the_whole_one_that_is_offered_goes_on(written, tmp_path, run_cli):
    shutil.copytree(written, tmp_path / "run")
    last, kept = (tmp_path / "run" / "checkpoints" / f"{name}.ckpt" for name in ("last", "kept"))
    shutil.copy(last, kept)
    last.write_bytes(last.read_bytes()[:5000])
    result = run_cli("resume=run/checkpoints/last.ckpt", "trainer.max_steps=30")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: resume={last} is damaged") and line.endswith(f"; this one is whole: {kept}")
    assert run_cli(f"resume={kept}", "trainer.max_steps=30").returncode == 0
    assert contents(tmp_path / "run")["global_step"] == 30


def damage(written, folder, change):
    """Copy a run, change its last checkpoint, and return the config that resumes it."""
    shutil.copytree(written, folder / "run")
    file = folder / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, file)
    config = OmegaConf.load(folder / "run" / ".hydra" / "config.yaml")
    config.trainer.max_steps, config.trainer.default_root_dir = 30, str(folder / "run")
    config.trainer.log_every_n_steps = 5  # Lightning warns of more than an epoch has
    config.resume = str(file)
    return config


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_resumed_run_keeps_its_record(saved):
    wanted = saved()
    with pytest.raises(ValueError, match=r"~control\.record would make it another run"):
        resumed_overrides([wanted, "~control.record"])
    assert "~control.interrupt" in resumed_overrides([wanted, "~control.interrupt"])[1]
