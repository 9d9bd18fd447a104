"""A process for each job of a sweep, so many at once, the next one as soon as a slot is free.

conf/sweep/ has what can be set; how a job is started is in `job.py`.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from gan_lightning.runs.state import run_state
from gan_lightning.sweeps.board import Board
from gan_lightning.sweeps.job import Job, Runner, check_vacant, prepare_processes
from gan_lightning.sweeps.overrides import check_folders, job_folder, of_the_run

log = logging.getLogger(__name__)


class ProcessLauncher(Launcher):
    """Runs each job in a fresh process, from a config that is composed here and written to the job's folder."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Raises ValueError for settings that no job could run with."""
        self.hydra_context, self.config = hydra_context, config
        settings = config.sweep
        check_folders(config)
        for key, least in ("workers", 1), ("gpus_per_job", 0), ("retries", 0):
            if not isinstance(settings[key], int) or settings[key] < least:
                raise ValueError(f"sweep.{key}={settings[key]} must be a whole number, {least} or more")
        if settings.on_failure not in ("continue", "stop"):
            raise ValueError(f"sweep.on_failure={settings.on_failure} must be continue or stop")
        if not (settings.timeout is None or (isinstance(settings.timeout, int | float) and settings.timeout > 0)):
            raise ValueError(f"sweep.timeout={settings.timeout} must be seconds, or null for no limit")
        self.runner = Runner(settings.timeout, settings.retries)
        self.board = Board(settings.workers, settings.metric, settings.direction)
        self.slots: queue.SimpleQueue[tuple[int, list[str]]] = queue.SimpleQueue()
        for number, gpus in enumerate(share_gpus(settings.workers, settings.gpus_per_job)):
            self.slots.put((number, gpus))
        self._composing = threading.Lock()
        prepare_processes(max(1, num_cpus() // settings.workers))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; several threads may each launch some, and share the slots.

        What has become of a job is in its folder (`run_state`); the returns say no more than that it was looked after.
        """
        if not job_overrides:
            raise ValueError("what was typed stands for no job: a range such as seed=range(3,3) has no values")
        jobs = [self._prepare(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        with ThreadPoolExecutor(min(self.config.sweep.workers, len(jobs))) as threads:
            for done in [threads.submit(self._run, job) for job in jobs]:
                done.result()
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]

    @property
    def stopping(self) -> threading.Event:
        """Set it, and all jobs save and end, and no other is started."""
        return self.runner.stopping

    def kill(self) -> None:
        """End the jobs that are saving."""
        self.runner.killing.set()

    def close(self) -> None:
        """After the last launch."""
        self.board.close()
        self.runner.close()

    def _prepare(self, overrides: Sequence[str], number: int) -> Job:
        with self._composing:  # Hydra's parts are not made for several threads
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        folder, own = job_folder(self.config, number), of_the_run(overrides)
        check_vacant(folder, own)
        return Job(number, folder, own, self._threads(config), lambda: write_config(folder, config, own))

    def _run(self, job: Job) -> None:
        slot, gpus = self.slots.get()
        try:
            if self.runner.stopping.is_set():
                return
            if (state := run_state(job.folder)).is_final:
                self.board.kept(job, state)
                return
            self.board.started(slot, job)
            started = time.monotonic()
            try:
                self.runner.run(job, gpus)
            finally:
                state = run_state(job.folder)
                self.board.ended(slot, job, state, time.monotonic() - started)
            if state.name == "failed" and self.config.sweep.on_failure == "stop":
                self.stopping.set()
        finally:
            self.slots.put((slot, gpus))

    def _threads(self, config: DictConfig) -> int:
        """CPU threads of each process of a job, where all slots share the CPUs evenly."""
        devices = str(config.trainer.devices)
        processes = self.config.sweep.workers * (int(devices) if devices.isdigit() else 1)
        return max(1, num_cpus() // processes)


def num_cpus() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_gpus(workers: int, gpus_per_job: int) -> list[list[str]]:
    """The GPUs of each slot, as in CUDA_VISIBLE_DEVICES.

    Raises:
        ValueError: if there are too few.
    """
    if not gpus_per_job:
        return [[] for _ in range(workers)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        gpus = [str(number) for number in range(torch.cuda.device_count())]
    else:
        gpus = [name.strip() for name in visible.split(",") if name.strip()]
    if len(gpus) < workers * gpus_per_job:
        fit = len(gpus) // gpus_per_job
        way_out = f"use sweep.workers={fit}" if fit else "use sweep.gpus_per_job=0"
        raise ValueError(
            f"sweep.workers={workers} with sweep.gpus_per_job={gpus_per_job} needs {workers * gpus_per_job} GPUs, "
            f"this machine shows {len(gpus)}; {way_out}"
        )
    return [gpus[i * gpus_per_job : (i + 1) * gpus_per_job] for i in range(workers)]


def write_config(folder: Path, config: DictConfig, overrides: Sequence[str]) -> None:
    """What Hydra writes for a run of its own: `.hydra/` with the config, the choices, and what was typed."""
    place = folder / ".hydra"
    place.mkdir(parents=True, exist_ok=True)
    task: Any = config.copy()
    with open_dict(task):
        hydra = task.pop("hydra")
    with open_dict(hydra):
        for key in "help", "hydra_help":
            hydra.pop(key, None)
    OmegaConf.save(list(overrides), place / "overrides.yaml")  # first: by it the folder is known
    OmegaConf.save({"hydra": hydra}, place / "hydra.yaml")
    OmegaConf.save(task, place / "config.yaml")
