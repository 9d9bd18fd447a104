"""Jobs in process groups: timed, retried, stopped, nothing left behind. The runs here are small scripts."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gan_lightning.runs.resume import AtEnd
from gan_lightning.runs.state import run_state
from gan_lightning.sweeps import guardian
from gan_lightning.sweeps import job as jobs
from gan_lightning.sweeps.job import Job, Runner, check_vacant, job_environment
from gan_lightning.sweeps.launcher import ProcessLauncher, share_gpus


def script(body):
    """Stands in for `become`: a process group of its own that runs `body(folder, args)`."""

    def become(args, environment, output):
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a training in this process may have left its own
        sys.stdout = sys.stderr = open(output, "a")  # noqa: SIM115
        body(Path(output).parent, args)

    return become


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a job whose process does `body`: its state, and the runner's."""

    def start(body, folder=tmp_path / "0", before=lambda runner: None, **settings):
        # Forked from here, the process knows `body`; those of a sweep know only what can be imported.
        monkeypatch.setattr(jobs, "PROCESSES", multiprocessing.get_context("fork"))
        monkeypatch.setattr(jobs.PROCESSES, "set_forkserver_preload", lambda names: None)
        monkeypatch.setattr(jobs, "become", script(body))
        runner = Runner(**settings)
        job = Job(0, folder, ["seed=1"], 1, lambda: (folder / ".hydra").mkdir(parents=True))
        before(runner)
        runner.run(job)
        runner.close()
        return run_state(folder)

    return start


def done(folder, args):
    (folder / "metrics.json").write_text(json.dumps({"state": "done"}))


def fail(folder, args):
    (folder / "train.log").touch()
    (folder / "error.txt").write_text("optimizer.generator.lr=-1: Invalid learning rate: -1\n")
    sys.exit(1)


def test_a_job_that_ends_well_is_done(run):
    assert run(done).name == "done"


def test_a_job_that_fails_says_why(run):
    state = run(fail)
    assert (state.name, state.error) == ("failed", "optimizer.generator.lr=-1: Invalid learning rate: -1")


def test_a_job_that_is_killed_is_named_as_such(run):
    state = run(lambda folder, args: os.kill(os.getpid(), signal.SIGKILL))
    assert state.error == "killed by SIGKILL: out of memory, or by hand"


def outlive(folder, args):
    (folder / "process").write_text(str(os.getpid()))
    time.sleep(60)


def test_a_job_that_takes_too_long_is_ended(run, tmp_path):
    state = run(outlive, timeout=1)
    assert state.error == "took longer than sweep.timeout=1 seconds"
    assert not alive(int((tmp_path / "0" / "process").read_text()))


def test_a_job_that_does_not_listen_is_killed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "GRACE", 0.5)

    def deaf(folder, args):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        outlive(folder, args)

    assert run(deaf, timeout=1).name == "failed"
    assert not alive(int((tmp_path / "0" / "process").read_text()))


def test_a_job_is_tried_again_as_often_as_asked(run, tmp_path):
    tries = tmp_path / "tries"

    def third_time(folder, args):
        with tries.open("a") as file:
            file.write("x")
        (done if tries.read_text() == "xxx" else fail)(folder, args)

    assert run(third_time, retries=1).name == "failed"
    tries.unlink()
    assert run(third_time, retries=2).name == "done"


def test_a_job_that_was_begun_goes_on_from_its_checkpoint(run, tmp_path):
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "0" / "checkpoints" / "last.ckpt").touch()

    def resumed(folder, args):
        assert args == [f"resume='{folder}'"]
        done(folder, args)

    assert run(resumed).name == "done"


def test_a_job_that_was_begun_without_a_checkpoint_starts_anew(run, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "events.out").touch()  # curves of the first try would be doubled

    def anew(folder, args):
        assert not (folder / "events.out").exists()
        assert args[:2] == ["--config-path", str(folder / ".hydra")]
        done(folder, args)

    assert run(anew).name == "done"


def test_a_run_killed_between_its_last_checkpoint_and_its_scores_starts_anew(run, tmp_path):
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "0" / "checkpoints" / "last.ckpt").touch()

    def at_end(folder, args):
        if args[0].startswith("resume="):
            sys.exit(AtEnd.exit_code)
        done(folder, args)

    assert run(at_end).name == "done"


def test_a_job_that_a_killed_sweep_has_left_is_waited_for(run, tmp_path):
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "0" / "checkpoints" / "last.ckpt").touch()
    held = "import sys, time, filelock; filelock.FileLock(sys.argv[1]).acquire(); print(1, flush=True); time.sleep(2)"
    with subprocess.Popen([sys.executable, "-c", held, tmp_path / "0" / ".lock"], stdout=subprocess.PIPE) as earlier:
        earlier.stdout.readline()
        state = run(lambda folder, args: (fail if earlier.poll() is None else done)(folder, args))
    assert state.name == "done"


def test_a_job_that_is_done_is_not_run_again(run, tmp_path):
    (tmp_path / "0").mkdir()
    done(tmp_path / "0", [])
    assert run(fail).name == "done"


def test_a_folder_with_another_run_is_not_touched(tmp_path):
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
    check_vacant(tmp_path / "0", ["seed=2"])  # it has nothing to lose yet
    done(tmp_path / "0", [])
    check_vacant(tmp_path / "0", ["seed=1"])
    check_vacant(tmp_path / "0", ["trainer.enable_progress_bar=false", "logger=none", "seed=1", "~callbacks.console"])
    with pytest.raises(ValueError, match="holds another run"):  # its scores could not be compared
        check_vacant(tmp_path / "0", ["seed=1", "metrics.num_samples=100"])
    with pytest.raises(ValueError, match=r"holds another run \(seed=1\); choose another place: sweep\.name="):
        check_vacant(tmp_path / "0", ["seed=2"])


def test_a_folder_with_something_else_is_not_touched(tmp_path):
    (tmp_path / "0").mkdir()
    check_vacant(tmp_path / "0", ["seed=1"])
    (tmp_path / "0" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds files that are not a run"):
        check_vacant(tmp_path / "0", ["seed=1"])


def test_a_job_that_ends_without_a_word_is_said_to(run):
    assert re.fullmatch(r"ended with exit code 3; see .*output\.log", run(lambda *_: os._exit(3)).error)


def test_a_job_that_is_done_stays_so_however_its_process_ends(run):
    def crashes_at_exit(folder, args):
        done(folder, args)
        os.kill(os.getpid(), signal.SIGKILL)

    assert run(crashes_at_exit).name == "done"


def test_what_a_job_leaves_running_is_ended_with_it(run, tmp_path):
    def leave(folder, args):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (tmp_path / "child").write_text(str(child.pid))
        os._exit(3)

    run(leave)
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.1)
    pytest.fail("a child of the job still runs")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stopping_lets_the_job_save_and_starts_no_other(run, tmp_path):
    listens = tmp_path / "listens"

    def stop_then(runner):
        def wait():
            while not listens.exists():
                time.sleep(0.01)
            runner.stopping.set()

        threading.Thread(target=wait, daemon=True).start()

    def saves(folder, args):
        def save(*_):
            (folder / "metrics.json").write_text(json.dumps({"state": "stopped"}))
            sys.exit(130)

        signal.signal(signal.SIGTERM, save)
        listens.touch()
        time.sleep(60)

    assert run(saves, before=stop_then, retries=3).name == "stopped"


def test_guardian_ends_what_a_killed_sweep_leaves(tmp_path):
    """The sweep's end of the pipe is closed by the kernel, whatever ended it."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    threading.Thread(target=sleeper.wait, daemon=True).start()  # else it stays a zombie, which init would not let it
    keeper = subprocess.Popen([sys.executable, guardian.__file__], stdin=subprocess.PIPE, text=True)
    keeper.communicate(f"+{sleeper.pid}\n+{other.pid}\n-{other.pid}\n", timeout=20)
    try:
        assert sleeper.wait(5) == -signal.SIGTERM
        assert other.poll() is None  # a job that had ended: its number may be another's by now
    finally:
        other.kill()
        other.wait()


# --- What a job may use ------------------------------------------------------------------------------------


def test_environment_is_the_users_without_what_a_launcher_left(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "1234")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("MINE", "kept")
    monkeypatch.delenv("OMP_NUM_THREADS")
    environment = job_environment(3, ["4", "5"])
    assert not {"LOCAL_RANK", "MASTER_PORT", "HYDRA_FULL_ERROR"} & set(environment)
    assert (environment["MINE"], environment["OMP_NUM_THREADS"]) == ("kept", "3")
    assert environment["CUDA_VISIBLE_DEVICES"] == "4,5"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert job_environment(3, [])["OMP_NUM_THREADS"] == "2"


def test_each_worker_owns_gpus_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-a,7,8")
    assert share_gpus(2, 2) == [["4", "5"], ["GPU-a", "7"]]
    assert share_gpus(3, 0) == [[], [], []]


def test_too_few_gpus_say_how_many_workers_fit(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ValueError, match=r"needs 3 GPUs, this machine shows 2; use sweep\.workers=2"):
        share_gpus(3, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match=r"shows 0; use sweep\.gpus_per_job=0"):
        share_gpus(1, 1)


@pytest.mark.parametrize(
    ("own", "threads"), [(None, "3"), ("", "3"), ("x", "3"), ("0", "3"), ("-1", "3"), ("2", "2"), ("4,2", "4,2")]
)
def test_a_number_of_threads_that_is_none_is_as_if_it_were_not_set(monkeypatch, own, threads):
    monkeypatch.delenv("OMP_NUM_THREADS")
    if own is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    assert job_environment(3, [])["OMP_NUM_THREADS"] == threads


def test_values_that_stand_for_no_job_are_one_line():
    with pytest.raises(ValueError, match="there is no job to run"):
        ProcessLauncher().launch([], 0)


@pytest.mark.skipif(not os.path.isdir("/tmp"), reason="no /tmp on this system")
def test_sockets_of_processes_find_a_short_place_where_tmpdir_is_long(tmp_path, monkeypatch):
    """A socket's path has 108 bytes at most. Tried in a process of its own: the place is chosen once."""
    long = tmp_path / ("a" * 90)
    long.mkdir()
    code = (
        "from gan_lightning.sweeps.job import prepare_processes; import multiprocessing.util, tempfile\n"
        "prepare_processes(1); print(multiprocessing.util.get_temp_dir()); print(tempfile.gettempdir())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
    sockets, files = told.stdout.split()
    assert sockets.startswith("/tmp/") and len(sockets) < 40
    assert files == str(long)  # all else stays where the user wants it
