"""One job of a sweep: a run in its own process group, started from the config in its folder."""

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

from gan_lightning.cli.processes import without_launcher
from gan_lightning.files import shorten
from gan_lightning.runs.folder import typed_overrides
from gan_lightning.runs.identity import words_compared
from gan_lightning.runs.resume import AtEnd
from gan_lightning.runs.state import ERROR, run_state
from gan_lightning.runs.typed import quote
from gan_lightning.sweeps import guardian

GRACE = 30.0  # seconds for a job to save its checkpoint after it is asked to stop
POLL = 0.1  # seconds
LONGEST_PLACE = 40  # letters of the folder of a socket, whose path the system cuts at 107

# Forked from a process that has imported what takes long; spawned where forks are not safe.
PROCESSES: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """What to run, and where."""

    number: int  # in its sweep
    folder: Path
    overrides: Sequence[str]  # without those of the sweep itself
    threads: int  # CPU threads of each of its processes, unless the user has set them
    write_config: Callable[[], None]  # writes `.hydra/` into the folder


class Runner:
    """Run jobs, each until it ends, and leave none of their processes behind.

    Args:
        timeout: seconds that a job may take, or None.
        retries: how often a failed job is started again, from its last checkpoint if it has one.
    """

    def __init__(self, timeout: float | None = None, retries: int = 0) -> None:
        self.timeout = timeout
        self.retries = retries
        self.stopping = threading.Event()  # jobs save and end
        self.killing = threading.Event()  # jobs are killed
        self._guardian: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._polling = threading.Lock()  # multiprocessing touches all processes in each of these calls

    def run(self, job: Job, gpus: Sequence[str] = ()) -> None:
        """Run a job until it ends, from where it is; `run_state(job.folder)` says how it ended.

        Args:
            gpus: as in CUDA_VISIBLE_DEVICES; empty: all that the sweep sees.
        """
        self._wait_for_earlier(job.folder)
        if run_state(job.folder).is_final:
            return
        environment = job_environment(job.threads, gpus)
        for _ in range(1 + self.retries):
            is_resumable = (job.folder / "checkpoints" / "last.ckpt").exists()
            if is_resumable:
                exit_code = self._run_once(job, [f"resume={quote(job.folder)}"], environment)
            # One at its end was killed between its last checkpoint and its scores.
            if not is_resumable or (exit_code == AtEnd.exit_code and not self.stopping.is_set()):
                self._run_from_start(job, environment)
            if self.stopping.is_set() or run_state(job.folder).is_final:
                return

    def _wait_for_earlier(self, folder: Path) -> None:
        """Wait for the guardian of a sweep that was killed a moment ago: it may still be ending this job."""
        deadline = time.monotonic() + 2 * guardian.GRACE
        while run_state(folder).name == "running" and time.monotonic() < deadline and not self.stopping.is_set():
            time.sleep(POLL)

    def _run_from_start(self, job: Job, environment: dict[str, str]) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)  # what was begun has no checkpoint to go on from
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
                error.unlink()  # written by a process that was ended before the others
        elif not state.is_final and not told and (reason := reason or why(exit_code, job.folder)):
            error.write_text(f"{reason}\n", encoding="utf-8")
        return exit_code

    def _wait(self, process: BaseProcess) -> tuple[int, str | None]:
        """Wait for the end of a job, or end it. Returns its exit code, and the reason if the job cannot know it."""
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
                if guardian.send(process.pid, signal.SIGTERM):  # False: it has not made its group yet
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
                    start_new_session=True,  # so that a Ctrl-C in the terminal does not reach it
                )

    def _tell_guardian(self, line: str) -> None:
        with self._lock:
            assert self._guardian and self._guardian.stdin
            print(line, file=self._guardian.stdin, flush=True)

    def close(self) -> None:
        """End the guardian."""
        with self._lock:
            if self._guardian:
                self._guardian.communicate()
                self._guardian = None


def prepare_processes(threads: int) -> None:
    """Start the process that jobs are forked from, and import there what jobs need. Call it in the main thread.

    That process ignores Ctrl-C, which would end it during its imports.

    Args:
        threads: of each job; libraries read the number when they are imported.
    """
    if PROCESSES.get_start_method() != "forkserver":
        return
    PROCESSES.set_forkserver_preload(["gan_lightning.sweeps.warm"])
    if len(tempfile.gettempdir()) > LONGEST_PLACE and os.path.isdir("/tmp"):
        own_place, tempfile.tempdir = tempfile.tempdir, "/tmp"
        multiprocessing.util.get_temp_dir()  # chosen once, for the life of this process
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
    """Turn this process into `python -m gan_lightning <args>`, in its own process group, printing to `output`."""
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
    """The reason why a job ended without giving one; None if it ended well."""
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}; see {shorten(folder / 'output.log')}" if exit_code else None
    name = signal.Signals(-exit_code).name
    return f"killed by {name}" + (": out of memory, or by hand" if name == "SIGKILL" else "")


def end_group(group: int, within: float) -> None:
    """Give the rest of a process group `within` seconds to end, then kill it. Its first process has ended."""
    deadline = time.monotonic() + within
    while guardian.send(group, 0):
        if time.monotonic() > deadline:
            guardian.send(group, signal.SIGKILL)
            return
        time.sleep(POLL)


def check_vacant(folder: Path, overrides: Sequence[str]) -> None:
    """Raise ValueError unless a job's folder is free, or holds what this job has begun."""
    if folder.exists() and any(folder.iterdir()) and not (folder / ".hydra").exists():
        raise ValueError(f"{shorten(folder)} holds files that are not a run; choose another place: sweep.name=…")
    other = typed_overrides(folder)
    worth = run_state(folder).name in ("done", "pruned", "running") or (folder / "checkpoints").exists()
    if worth and words_compared(other) != words_compared(overrides):
        raise ValueError(f"{shorten(folder)} holds another run ({' '.join(other)}); choose another place: sweep.name=…")


def omp_num_threads(threads: int) -> str:
    """The user's OMP_NUM_THREADS, or `threads` if it is not set or not a number, which OpenMP ignores too."""
    own = os.environ.get("OMP_NUM_THREADS", "")
    return own if re.fullmatch(r" *[1-9]\d* *(,.*)?", own) else str(threads)


def job_environment(threads: int, gpus: Sequence[str]) -> dict[str, str]:
    """The user's environment with the threads and GPUs of a job, and without a launcher's variables."""
    values = without_launcher(os.environ)
    values["OMP_NUM_THREADS"] = omp_num_threads(threads)
    if gpus:
        values["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return values
