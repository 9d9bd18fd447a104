"""Sweeps as people start them: python -m gan_lightning -m …, on small images, with jobs of a second or two."""

import csv
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from conftest import ROOT

from gan_lightning.runs.resume import AtEnd
from gan_lightning.runs.state import run_state
from gan_lightning.sweeps.storage import open_storage

SHORT = ["trainer=debug", "metrics=none", "sweep.metric=loss/generator"]
LR = "optimizer.generator.lr=tag(log,interval(1e-5,1e-2))"
WITHIN = 30  # seconds until nothing of a killed sweep is left


@pytest.fixture
def sweep(tmp_path, idx_data):
    """Start `python -m gan_lightning -m …` in an empty folder; its output goes to sweep.txt."""
    started = []

    def start(*args, wait=True, code=0, env=None, name="night"):
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        output = (tmp_path / "sweep.txt").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "gan_lightning", "-m", *SHORT, *idx_data, f"sweep.name={name}", *args],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), **(env or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        output.close()
        started.append(process)
        if wait:
            assert process.wait(600) == code, (tmp_path / "sweep.txt").read_text()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "night"


def told(tmp_path):
    return (tmp_path / "sweep.txt").read_text()


def rows(folder):
    return list(csv.DictReader((folder / "leaderboard.csv").read_text().splitlines()))


def trials(folder, name="night"):
    study = optuna.load_study(study_name=name, storage=open_storage(str(folder / "study.journal")))
    return study.get_trials()


def wait_until(what, within=120.0):
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_in(folder):
    """Of a sweep in this folder: its jobs, what they are forked from, who looks after them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")) == folder and "Z" not in (entry / "stat").read_text().split()[2]:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


# --- Grids -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_mixed_grid_ends_with_a_true_leaderboard(sweep, folder, tmp_path):
    """One job of three fails; the others end, and the command printed for the best repeats its score exactly."""
    sweep("optimizer.generator.lr=1e-3,2e-3,-1", "sweep.workers=2", code=1)
    *good, bad = rows(folder)
    assert [row["state"] for row in good] == ["done", "done"]
    scores = [float(row["loss/generator"]) for row in good]
    assert scores == sorted(scores)
    for row in good:
        assert run_state(tmp_path / row["folder"]).metrics["loss/generator"] == float(row["loss/generator"])
    assert bad["state"] == "failed"
    assert bad["error"].startswith("optimizer.generator.lr=-1: Invalid learning rate")
    assert "Traceback" in (tmp_path / bad["folder"] / "train.log").read_text()
    assert "1 of 3 jobs failed" in told(tmp_path)
    assert "data:image/png" in (folder / "leaderboard.html").read_text()

    # A resume= that is refused leaves the run what it is.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    refused = [sys.executable, "-m", "gan_lightning", f"resume={good[0]['folder']}"]
    assert subprocess.run(refused, cwd=tmp_path, env=environment, capture_output=True).returncode == AtEnd.exit_code
    assert run_state(tmp_path / good[0]["folder"]).name == "done"

    command = shlex.split(good[0]["command"])
    threads = command.pop(0)
    assert threads == f"OMP_NUM_THREADS={max(1, len(os.sched_getaffinity(0)) // 2)}"
    subprocess.run(
        [sys.executable, *command[1:], "hydra.run.dir=again"],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": threads.partition("=")[2]},
        check=True,
        capture_output=True,
    )
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["loss/generator"] == scores[0]


@pytest.mark.slow
def test_a_grid_of_the_same_name_runs_what_is_not_done(sweep, folder, tmp_path):
    sweep("seed=0,1")
    first = (folder / "0" / "train.log").read_text()
    (folder / "1" / "metrics.json").unlink()  # as if it had been killed
    sweep("seed=0,1")
    assert (folder / "0" / "train.log").read_text() == first
    assert run_state(folder / "1").name == "done"
    assert "job 0: done before" in told(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["2>&1 | head -1", ">&-", "2>&1 > /dev/full"])
def test_a_sweep_ends_with_its_leaderboard_whoever_reads_it(folder, idx_data, tmp_path, end):
    words = shlex.join([sys.executable, "-m", "gan_lightning", "-m", *SHORT, *idx_data, "sweep.name=night", "seed=0,1"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-c", f"{words} {end}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, env=environment, capture_output=True
    )
    assert result.returncode == (1 if "full" in end else 0) and b"Traceback" not in result.stdout + result.stderr
    assert [row["state"] for row in rows(folder)] == ["done", "done"]


@pytest.mark.slow
def test_a_name_that_is_taken_by_another_grid_is_refused(sweep, tmp_path):
    sweep("seed=0")
    sweep("seed=5", code=2)
    assert re.search(r"error: .*night/0 holds another run .*choose another place: sweep\.name=", told(tmp_path))


@pytest.mark.slow
def test_jobs_do_not_see_each_others_environment(sweep, folder, tmp_path):
    (tmp_path / "spy.py").write_text(SPY)
    spy = "+callbacks.spy={_target_:spy.Spy}"
    sweep("seed=0,1", "sweep.workers=2", "sweep.gpus_per_job=1", spy, env={"CUDA_VISIBLE_DEVICES": "3,5"})
    seen = [json.loads((folder / str(job) / "spy_0.json").read_text()) for job in (0, 1)]
    assert sorted(one["environment"]["CUDA_VISIBLE_DEVICES"] for one in seen) == ["3", "5"]
    assert all("LOCAL_RANK" not in one["environment"] and "HYDRA_FULL_ERROR" not in one["environment"] for one in seen)
    assert {one["threads"] for one in seen} == {max(1, len(os.sched_getaffinity(0)) // 2)}
    assert len({one["pid"] for one in seen}) == 2


SPY = """
import hashlib, json, os, pathlib
import torch
from lightning import Callback
from omegaconf import OmegaConf
from hydra.core.hydra_config import HydraConfig

class Spy(Callback):
    def on_train_start(self, trainer, gan):
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        config = hashlib.sha256(json.dumps([gan.seed, gan.latent_dim, rates]).encode()).hexdigest()
        seen = {"environment": dict(os.environ), "threads": torch.get_num_threads(), "pid": os.getpid()}
        seen["config"] = config
        file = pathlib.Path(trainer.default_root_dir) / f"spy_{trainer.global_rank}.json"
        file.write_text(json.dumps(seen))
"""


# --- Studies -----------------------------------------------------------------------------------------------


def test_a_killed_study_goes_on_to_exactly_its_trials(sweep, folder, tmp_path):
    """SIGKILL after two of four: nothing is left running, the rest is run, nothing twice."""
    args = ["sweep=study", "sweep.n_trials=4", "sweep.workers=2", LR]
    process = sweep(*args, wait=False)
    wait_until(lambda: told(tmp_path).count(": done after") >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not processes_in(tmp_path), within=WITHIN)
    before = {trial.number: trial for trial in trials(folder) if trial.state.is_finished()}
    logs = {number: (folder / str(number) / "train.log").read_bytes() for number in before}

    sweep(*args)
    after = trials(folder)
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 4
    assert len({trial.params["optimizer.generator.lr"] for trial in after}) == 4
    for number, trial in before.items():
        assert after[number].value == trial.value
        assert (folder / str(number) / "train.log").read_bytes() == logs[number]
    for trial in after:
        assert run_state(folder / str(trial.number)).metrics["loss/generator"] == trial.value

    sweep(*args)  # and once more: there is nothing to do
    assert len(trials(folder)) == 4


@pytest.mark.slow
def test_no_worker_waits_while_trials_are_left(sweep, folder, tmp_path):
    """Jobs of unequal length on two workers: from one's end to the next one's start is less than a second."""
    sweep(
        *("sweep=study", "sweep/sampler=grid", "sweep.n_trials=null", "sweep.workers=2"),
        *("trainer.max_epochs=1,12,2,8,3,4", "trainer.limit_train_batches=4"),
    )
    lines = [line.partition(" INFO ") for line in (folder / "sweep.log").read_text().splitlines()]
    events = [(time.mktime(time.strptime(stamp[:19], "%Y-%m-%d %H:%M:%S")) + int(stamp[20:23]) / 1000, text.strip())
              for stamp, _, text in lines if text]  # fmt: skip
    ended = [moment for moment, text in events if re.match(r"job \d+: done after", text)]
    begun = [moment for moment, text in events if re.match(r"job \d+: \S+=", text)]
    assert (len(ended), len(begun)) == (6, 6)
    for end, begin in zip(ended[:4], begun[2:], strict=True):
        assert begin - end < 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_trial_without_promise_is_pruned_and_its_run_is_whole(sweep, folder, devices):
    """Of two devices the first one asks; both stop at the same iteration, or the run would hang."""
    sweep(
        *(f"trainer.devices={devices}", "trainer.accelerator=cpu"),
        *(
            "sweep=study",
            "sweep/sampler=grid",
            "sweep.n_trials=null",
            "sweep/pruner=median",
            "sweep.metric=metrics/fid",
        ),
        *("sweep.pruner.n_startup_trials=2", "optimizer.generator.lr=1e-9,2e-9,2e-3", "trainer.max_epochs=3"),
        *("metrics=judge", "metrics.cache=cache", "trainer.check_val_every_n_epoch=1"),
    )
    # Eight iterations from random weights make images worse before they make them better: FID 78, 78, 132.
    good, fair, bad = trials(folder)
    assert (good.state.name, fair.state.name, bad.state.name) == ("COMPLETE", "COMPLETE", "PRUNED")
    assert list(good.intermediate_values) == [1, 2, 3]  # epochs
    assert good.intermediate_values[3] == good.value
    assert list(bad.intermediate_values) == [1]
    run = folder / "2"
    state = run_state(run)
    assert state.name == "pruned"
    assert state.metrics["iterations"] == 4  # an epoch
    assert (run / "checkpoints" / "last.ckpt").exists() and (run / "samples" / "epoch_0001.png").exists()
    assert rows(folder)[-1]["state"] == "pruned"


@pytest.mark.slow
def test_a_trial_that_fails_counts_and_says_why(sweep, folder, tmp_path):
    sweep("sweep=study", "sweep/sampler=grid", "sweep.n_trials=null", "optimizer.generator.lr=1e-3,abc", code=1)
    good, bad = trials(folder)
    assert (good.state.name, bad.state.name) == ("COMPLETE", "FAIL")
    assert bad.user_attrs["error"].startswith("optimizer.generator.lr=abc must be a number")


@pytest.mark.slow
def test_a_study_of_other_settings_is_refused_with_their_keys(sweep, tmp_path):
    sweep("sweep=study", "sweep.n_trials=1", LR)
    sweep("sweep=study", "sweep.n_trials=2", LR, "latent_dim=7", code=2)
    line = told(tmp_path).splitlines()[-1]
    assert line.startswith(
        "error: sweep.name=night: its trials were made with other settings (latent_dim; latent_dim was 100, is 7)"
    )


@pytest.mark.slow
def test_seeds_of_a_trial_are_averaged(sweep, folder):
    sweep("sweep=study", "sweep.n_trials=1", "sweep.seeds=2", "seed=5", LR)
    (trial,) = trials(folder)
    scores = [run_state(folder / str(job)).metrics for job in (0, 1)]
    assert [score["seed"] for score in scores] == [5, 6]
    assert trial.value == pytest.approx(sum(score["loss/generator"] for score in scores) / 2, rel=1e-15)
    (row, other) = rows(folder)
    assert row["mean"] == other["mean"] == str(trial.value)


# --- Stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_stops_all_jobs_and_keeps_the_study(sweep, folder, tmp_path, number):
    args = ["sweep=study", "sweep.n_trials=2", "sweep.workers=2", LR, "trainer.max_epochs=400"]
    process = sweep(*args, wait=False)
    wait_until(lambda: all((folder / str(job) / "checkpoints" / "last.ckpt").exists() for job in (0, 1)))
    process.send_signal(number)
    assert process.wait(60) == 130
    wait_until(lambda: not processes_in(tmp_path), within=WITHIN)
    assert [run_state(folder / str(job)).name for job in (0, 1)] == ["stopped", "stopped"]
    assert [trial.state.name for trial in trials(folder)] == ["RUNNING", "RUNNING"]
    assert "the same command with sweep.name=night goes on" in told(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "study"])
def test_one_failure_ends_the_sweep_where_asked_to(sweep, folder, kind):
    study = ["sweep=study", "sweep/sampler=grid", "sweep.n_trials=null"] if kind == "study" else []
    sweep(*study, "sweep.on_failure=stop", "optimizer.generator.lr=1e-3,-1,2e-3,3e-3", code=1)
    assert [run_state(folder / str(job)).name for job in range(4)] == ["done", "failed", "waiting", "waiting"]


CRASH = """
import os, signal, time
from pathlib import Path
from lightning import Callback

class Crash(Callback):
    def __init__(self, seed, rank, kill, behind=None):
        self.seed, self.rank, self.kill, self.behind = seed, rank, kill, behind
    def on_train_batch_start(self, trainer, gan, *_):
        if gan.seed == self.seed and trainer.global_rank == self.rank and trainer.global_step == 5:
            while self.behind and not Path(self.behind).exists():
                time.sleep(0.1)
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("a fault of the test")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "study"])
def test_the_other_jobs_of_a_sweep_that_ends_by_a_failure_save(sweep, folder, tmp_path, kind):
    study = ["sweep=study", "sweep/sampler=grid", "sweep.n_trials=null"] if kind == "study" else []
    (tmp_path / "crash.py").write_text(CRASH)
    begun = folder / "0" / "checkpoints" / "last.ckpt"
    crash = f"+callbacks.crash={{_target_:crash.Crash,seed:1,rank:0,kill:false,behind:'{begun}'}}"
    long = ["trainer.max_epochs=2000", "trainer.max_steps=20000"]
    sweep(*study, *long, crash, "sweep.workers=2", "sweep.on_failure=stop", "seed=0,1", code=1)
    assert [run_state(folder / job).name for job in "01"] == ["stopped", "failed"]
    assert begun.exists()


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 2.0, 4.0])
def test_ctrl_c_of_a_terminal_ends_a_sweep_that_has_just_begun(sweep, folder, tmp_path, after):
    """It goes to the whole process group: to the process that jobs are forked from too, while it imports."""
    process = sweep("seed=0,1", wait=False)
    wait_until((folder / "sweep.log").exists)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(40) == 130, told(tmp_path)
    assert "Traceback" not in told(tmp_path)
    wait_until(lambda: not processes_in(tmp_path), within=WITHIN)


@pytest.mark.slow
def test_a_metric_that_no_run_has_ends_the_study_at_its_first_trial(sweep, folder, tmp_path):
    sweep("sweep=study", "sweep.metric=loss/generater", "sweep.n_trials=4", LR, code=2)
    assert "error: sweep.metric=loss/generater: no run has it; there is" in told(tmp_path)
    assert not (folder / "1").exists()


@pytest.mark.slow
def test_a_value_typed_for_a_key_of_the_space_takes_it_out_of_the_search(sweep, folder):
    sweep("sweep=mlp_tpe", "sweep.metric=loss/generator", "sweep.n_trials=1", "penalty.weight=0.5", "sweep/pruner=none")
    (trial,) = trials(folder)
    assert set(trial.params) == {"optimizer.generator.lr", "optimizer.discriminator.lr", "ema.half_life_kimg"}
    assert "penalty.weight=0.5" in (folder / "0" / ".hydra" / "overrides.yaml").read_text()


@pytest.mark.slow
def test_a_stopped_study_goes_on_with_the_runs_it_has_begun(sweep, folder, tmp_path):
    """Resumed from their checkpoints, they end as if they had never been stopped."""
    args = ["sweep=study", "sweep.n_trials=2", "sweep.workers=2", LR, "trainer.max_epochs=30"]
    process = sweep(*args, wait=False)
    wait_until(lambda: all((folder / str(job) / "checkpoints" / "last.ckpt").exists() for job in (0, 1)))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    sweep(*args)
    sweep(*args[:3], *args[3:], name="at_once")
    first, second = ([trial.value for trial in trials(folder.parent / name, name)] for name in ("night", "at_once"))
    assert first == second


# --- Several devices, several sweeps -----------------------------------------------------------------------


@pytest.mark.slow
def test_all_ranks_of_a_job_have_its_hyperparameters(sweep, folder, tmp_path):
    (tmp_path / "spy.py").write_text(SPY)
    spy = "+callbacks.spy={_target_:spy.Spy}"
    sweep("sweep=study", "sweep.n_trials=3", LR, "n_critic=1,2", "trainer.devices=2", "trainer.accelerator=cpu", spy)
    seen = [[json.loads((folder / f"{job}/spy_{r}.json").read_text())["config"] for r in (0, 1)] for job in range(3)]
    assert all(first == second for first, second in seen)
    assert len({first for first, _ in seen}) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "kill"), [(0, "false"), (1, "false"), (0, "true"), (1, "true")])
def test_a_rank_that_ends_ends_only_its_own_job(sweep, folder, tmp_path, rank, kill):
    (tmp_path / "crash.py").write_text(CRASH)
    crash = f"+callbacks.crash={{_target_:crash.Crash,seed:1,rank:{rank},kill:{kill}}}"
    sweep("seed=0,1,2", "trainer.devices=2", "trainer.accelerator=cpu", crash, code=1)
    states = [run_state(folder / str(job)) for job in range(3)]
    assert [state.name for state in states] == ["done", "failed", "done"]
    if kill == "false":
        assert "a fault of the test" in states[1].error
        assert "Traceback" in (folder / "1" / "train.log").read_text()
    wait_until(lambda: not processes_in(tmp_path), within=WITHIN)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_several_sweeps_share_one_study(sweep, folder, tmp_path, storage):
    """As several machines do: each trial is run once, n_trials in all."""
    args = ["sweep=study", "sweep.n_trials=5", LR]
    if storage == "sqlite":
        args.append(f"sweep.storage='sqlite:///{tmp_path}/study.db'")
    several = [sweep(*args, wait=False) for _ in range(2)]
    assert [process.wait(600) for process in several] == [0, 0], told(tmp_path)
    place = str(folder / "study.journal") if storage == "journal" else f"sqlite:///{tmp_path}/study.db"
    ended = optuna.load_study(study_name="night", storage=open_storage(place)).get_trials()
    assert [trial.state.name for trial in ended] == ["COMPLETE"] * 5
    assert len({trial.params["optimizer.generator.lr"] for trial in ended}) == 5
    assert len(re.findall(r"job \d+: done after", told(tmp_path))) == 5


def test_a_database_whose_tables_another_sweep_is_making_is_opened_a_moment_later(monkeypatch):
    version = "UNIQUE constraint failed: alembic_version.version_num"
    answers = [RuntimeError("table studies already exists"), RuntimeError(version), "storage"]

    def get_storage(url):
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr("optuna.storages.get_storage", get_storage)
    assert open_storage("sqlite:///study.db") == "storage"
    answers[:] = [RuntimeError("no such host")]
    with pytest.raises(RuntimeError, match="no such host"):
        open_storage("sqlite:///study.db")


@pytest.mark.slow
def test_sweeps_of_the_same_moment_have_folders_of_their_own(sweep, tmp_path):
    several = [sweep("seed=0,1", "sweep.name=${run_name:}", wait=False) for _ in range(3)]
    assert [process.wait(600) for process in several] == [0, 0, 0], told(tmp_path)
    folders = list((tmp_path / "outputs" / "sweeps").iterdir())
    assert len(folders) == 3
    assert all(run_state(a / job).name == "done" for a, job in itertools.product(folders, "01"))


# --- What cannot be started --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["sweep.workers=0"], "sweep.workers=0 must be a whole number, 1 or more"),
        (["sweep.direction=min"], "sweep.direction=min must be minimize or maximize, or null"),
        (["sweep.timeout=2h"], "sweep.timeout=2h must be seconds, or null for no limit"),
        (["hydra.sweep.subdir=same"], "hydra.sweep.subdir=same: each job runs in the folder of its number; leave"),
        (["sweep=study", "sweep.metric=metrics/fid", LR], "metrics=none: no job will have sweep.metric=metrics/fid"),
        (["sweep=study", "hydra/launcher=basic", LR], "hydra/launcher=basic: a study needs a process for each job"),
        (["sweep.on_failure=cry"], "sweep.on_failure=cry must be continue or stop"),
        (["sweep=study", "sweep.n_trials=0"], "sweep.n_trials=0 must be a whole number, 1 or more"),
        (["sweep=study", "sweep.seeds=0"], "sweep.seeds=0 must be a whole number, 1 or more"),
        (["sweep=study"], "sweep.space is empty; give a key several values"),
        (
            ["sweep=study", "optimizer.generator.l=interval(0,1)"],
            "optimizer.generator.l=interval(0,1): unknown key; did you mean",
        ),
        (["optimizer.generator.lr=1e-3,2e-3", "modle=mlp"], "modle=mlp: unknown key; did you mean model?"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_started_says_why_before_any_job(sweep, folder, tmp_path, args, line):
    sweep(*args, code=2)
    assert f"error: {line}" in told(tmp_path)
    assert not (folder / "0").exists()


def test_hydras_own_launcher_does_not_mix_a_grid_with_an_earlier_one(sweep, folder, tmp_path):
    (folder / "1" / ".hydra").mkdir(parents=True)
    (folder / "1" / "metrics.json").write_text("{}")
    sweep("seed=0,1", "hydra/launcher=basic", code=2)
    place = "outputs/sweeps/night/1"
    assert f"error: sweep.name=night: {place} holds a run already; choose another sweep.name for a new one" in told(
        tmp_path
    )
    assert not (folder / "0").exists() and (folder / "1" / "metrics.json").read_text() == "{}"


def test_a_sweep_without_m_is_refused(run_cli):
    result = run_cli("sweep=mlp_tpe", "sweep.workers=2")
    assert result.returncode == 2
    way_out = result.stderr.strip().partition("a sweep takes -m; ")[2]
    assert way_out.endswith("python -m gan_lightning -m sweep=mlp_tpe sweep.workers=2")


def test_sweeps_that_ship_compose_their_first_trial(compose):
    """Each in conf/sweep: its settings and its space are keys that the config has."""
    from gan_lightning.files import options
    from gan_lightning.sweeps.space import distribution, override

    for name in options("sweep"):
        config = compose(f"sweep={name}", "sweep.name=x").sweep
        space = config.get("space", {})
        first = [override(key, given.get("low", given.get("choices", [None])[0])) for key, given in space.items()]
        assert all(distribution(key, dict(given)) for key, given in space.items())
        compose(*(word for word in config.settings if "range(" not in word), *first, small=False)
