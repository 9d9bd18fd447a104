"""One job of a sweep: a run in a process group of its own, started from the config in its folder."""

import multiprocessing
import multiprocessing.util
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gan_lightning.files import shorten
from gan_lightning.runs.folder import typed_overrides
from gan_lightning.runs.identity import role_of
from gan_lightning.runs.resume import AtEnd
from gan_lightning.runs.state import ERROR, run_state
from gan_lightning.runs.typed import quote
from gan_lightning.sweeps import guardian

GRACE = 30.0  # seconds for a job to save its checkpoint after it is asked to stop
POLL = 0.1  # seconds
LONGEST_PLACE = 40  # letters of the folder of a socket, whose path the system cuts at 107

# Forked from a process that has imported what takes long; where forks are not safe, started anew.
PROCESSES: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "HYDRA_FULL_ERROR")
OF_A_CLUSTER = ("SLURM_", "TORCHELASTIC_")  # Lightning would wait for ranks that srun or torchrun started
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """What to run, and where.

    Args:
        number: in its sweep.
        folder: of the run.
        overrides: that its config follows from, without what only the sweep needs.
        threads: CPU threads of each of its processes, where the user has not set them.
        write_config: writes `.hydra/` into the folder.
    """

    number: int
    folder: Path
    overrides: Sequence[str]
    threads: int
    write_config: Callable[[], None]


class Runner:
    """Runs jobs, each until it has ended, and leaves no process of theirs behind.

    Args:
        timeout: seconds that a job may take, or None.
        retries: times that a job which fails is started again, from its last checkpoint where it has one.
    """

    def __init__(self, timeout: float | None = None, retries: int = 0) -> None:
        self.timeout = timeout
        self.retries = retries
        self.stopping = threading.Event()  # jobs are to save and end
        self.killing = threading.Event()  # ... at once
        self._guardian: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._polling = threading.Lock()  # multiprocessing looks after all processes in each of these calls

    def run(self, job: Job, gpus: Sequence[str] = ()) -> None:
        """Bring a job to its end, from where it is; `run_state(job.folder)` says to which.

        Args:
            gpus: as in CUDA_VISIBLE_DEVICES; none: all that the sweep sees.
        """
        self._wait_for_earlier(job.folder)
        if run_state(job.folder).is_final:
            return
        environment = job_environment(job.threads, gpus)
        for _ in range(1 + self.retries):
            exit_code: int | None = None
            if (job.folder / "checkpoints" / "last.ckpt").exists():
                exit_code = self._run_once(job, [f"resume={quote(job.folder)}"], environment)
            else:
                self._run_from_start(job, environment)
            if exit_code == AtEnd.exit_code and not self.stopping.is_set():
                self._run_from_start(job, environment)  # it was killed between its last checkpoint and its scores
            if self.stopping.is_set() or run_state(job.folder).is_final:
                return

    def _wait_for_earlier(self, folder: Path) -> None:
        """A job of a sweep that was killed a moment ago is still being ended by its guardian."""
        deadline = time.monotonic() + 2 * guardian.GRACE
        while run_state(folder).name == "running" and time.monotonic() < deadline and not self.stopping.is_set():
            time.sleep(POLL)

    def _run_from_start(self, job: Job, environment: dict[str, str]) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)  # what was begun: nothing in it can be gone on with
        job.write_config()
        config = ["--config-path", str(job.folder / ".hydra"), "--config-name", "config"]
        place = [f"hydra.run.dir={quote(job.folder)}", "hydra.output_subdir=null"]
        self._run_once(job, [*config, *place], environment)

    def _run_once(self, job: Job, args: list[str], environment: dict[str, str]) -> int | None:
        """Run a job in a process, and return its exit code."""
        started = time.time()
        self._start_guardian()  # before there is a job to end
        process = PROCESSES.Process(target=become, args=(args, environment, str(job.folder / "output.log")))
        with self._polling:
            process.start()
        assert process.pid
        exit_code, reason = None, None
        try:
            self._tell_guardian(f"+{process.pid}")
            exit_code, reason = self._wait(process)
        finally:
            end_group(process.pid, within=5 if exit_code == 0 else 1)
            self._tell_guardian(f"-{process.pid}")
        error, state = job.folder / ERROR, run_state(job.folder)
        told = error.exists() and error.stat().st_mtime >= started
        if self.stopping.is_set():
            if told and not state.is_final:
                error.unlink()  # of a process of it that was ended before the others
        elif not state.is_final and not told and (reason := reason or why(exit_code, job.folder)):
            error.write_text(f"{reason}\n", encoding="utf-8")
        return exit_code

    def _wait(self, process: BaseProcess) -> tuple[int, str | None]:
        """Wait for the end of a job, or bring it about: its exit code, and why where the job itself cannot know."""
        assert process.pid
        deadline = time.monotonic() + self.timeout if self.timeout else float("inf")
        asked, reason = None, None
        while True:
            wait([process.sentinel], POLL)
            with self._polling:
                exit_code = process.exitcode
            if exit_code is not None:
                return exit_code, reason
            if asked is None and (self.stopping.is_set() or time.monotonic() > deadline):
                if not self.stopping.is_set():
                    reason = f"took longer than sweep.timeout={self.timeout:g} seconds"
                if guardian.send(process.pid, signal.SIGTERM):  # else it has not made its group yet
                    asked = time.monotonic()
            if asked is not None and (self.killing.is_set() or time.monotonic() - asked > GRACE):
                guardian.send(process.pid, signal.SIGKILL)

    def _start_guardian(self) -> None:
        with self._lock:
            if self._guardian is None:
                self._guardian = subprocess.Popen(
                    [sys.executable, "-S", "-E", guardian.__file__],
                    stdin=subprocess.PIPE,
                    encoding="utf-8",
                    start_new_session=True,  # a Ctrl-C in the terminal is not for it
                )

    def _tell_guardian(self, line: str) -> None:
        with self._lock:
            assert self._guardian and self._guardian.stdin
            print(line, file=self._guardian.stdin, flush=True)

    def close(self) -> None:
        """Send the guardian home."""
        with self._lock:
            if self._guardian:
                self._guardian.communicate()
                self._guardian = None


def prepare_processes(threads: int) -> None:
    """Begin to import what jobs need, in the process that they are forked from. To be called in the main thread.

    A Ctrl-C is for the sweep, not for that process, which would die of it while it imports.

    Args:
        threads: of each job; libraries read it when they are imported.
    """
    if PROCESSES.get_start_method() != "forkserver":
        return
    PROCESSES.set_forkserver_preload(["gan_lightning.sweeps.warm"])
    if len(tempfile.gettempdir()) > LONGEST_PLACE and os.path.isdir("/tmp"):
        own_place, tempfile.tempdir = tempfile.tempdir, "/tmp"
        multiprocessing.util.get_temp_dir()  # it keeps to it
        tempfile.tempdir = own_place
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    own = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = omp_num_threads(threads)
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        del os.environ["OMP_NUM_THREADS"]
        if own is not None:
            os.environ["OMP_NUM_THREADS"] = own


def become(args: list[str], environment: dict[str, str], output: str) -> None:
    """Make this process the one that `python -m gan_lightning <args>` starts, in a process group of its own.

    Args:
        output: a file for what it prints.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with open(output, "ab") as file:
        for stream in sys.stdout, sys.stderr:
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"].split(",")[0]))  # read already when torch was imported
    sys.argv[1:] = args
    runpy.run_module("gan_lightning", run_name="__main__", alter_sys=True)


def why(exit_code: int | None, folder: Path) -> str | None:
    """Why a job ended that has not said so itself; None where it ended well."""
    if exit_code is None or exit_code >= 0:
        return (
            f"ended with exit code {exit_code}; {shorten(folder / 'output.log')} has its words" if exit_code else None
        )
    name = signal.Signals(-exit_code).name
    return f"killed by {name}" + (": out of memory, or by hand" if name == "SIGKILL" else "")


def end_group(group: int, within: float) -> None:
    """Wait so many seconds for what is left of a process group whose first process has ended, then kill it."""
    deadline = time.monotonic() + within
    while guardian.send(group, 0):
        if time.monotonic() > deadline:
            guardian.send(group, signal.SIGKILL)
            return
        time.sleep(POLL)


def check_vacant(folder: Path, overrides: Sequence[str]) -> None:
    """Make sure that a job's folder holds nothing of worth, or what this job has begun there.

    Raises:
        ValueError: if another run is there.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / ".hydra").exists():
        raise ValueError(f"{shorten(folder)} holds something that is no run; choose another place: sweep.name=…")
    other = typed_overrides(folder)
    worth = run_state(folder).name in ("done", "pruned", "running") or (folder / "checkpoints").exists()
    if worth and settings(other) != settings(overrides):
        raise ValueError(f"{shorten(folder)} holds another run ({' '.join(other)}); choose another place: sweep.name=…")


def settings(overrides: Sequence[str]) -> set[str]:
    """The overrides that a run and its scores follow from, whatever their order."""
    return {word for word in overrides if role_of(word.lstrip("+~").partition("=")[0]) not in ("observes", "place")}


def omp_num_threads(threads: int) -> str:
    """The user's OMP_NUM_THREADS, or else `threads`; OpenMP too takes no notice of one that is no number."""
    own = os.environ.get("OMP_NUM_THREADS", "")
    return own if re.fullmatch(r" *[1-9]\d* *(,.*)?", own) else str(threads)


def job_environment(threads: int, gpus: Sequence[str]) -> dict[str, str]:
    """The user's environment, without what a launcher of processes has left in it."""
    values = {
        name: value
        for name, value in os.environ.items()
        if name not in OF_A_LAUNCHER and not name.startswith(OF_A_CLUSTER)
    }
    values["OMP_NUM_THREADS"] = omp_num_threads(threads)
    if gpus:
        values["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return values
