"""Run each job of a sweep in its own process, several at once.

The settings are in conf/sweep/; `job.py` starts a job.
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

from gan_lightning.cli.checks import Rule, check_values, one_of, whole
from gan_lightning.runs.state import run_state
from gan_lightning.sweeps.board import Board
from gan_lightning.sweeps.job import Job, Runner, check_vacant, prepare_processes
from gan_lightning.sweeps.overrides import check_folders, job_folder, of_the_run

log = logging.getLogger(__name__)

RULES = {  # of sweep.*
    "workers": whole(1),
    "gpus_per_job": whole(0),
    "retries": whole(0),
    "on_failure": one_of("continue", "stop"),
    "timeout": Rule(
        lambda value: value is None or (type(value) in (int, float) and value > 0), "seconds, or null for no limit"
    ),
}


class ProcessLauncher(Launcher):
    """Run each job in a new process, from a config that is composed here and written to the job's folder."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Raise ValueError for settings that no job could run with."""
        self.hydra_context, self.config = hydra_context, config
        settings = config.sweep
        check_folders(config)
        check_values(settings, RULES, "sweep")
        self.runner = Runner(settings.timeout, settings.retries)
        self.board = Board(settings.workers, settings.metric, settings.direction)
        self.slots: queue.SimpleQueue[tuple[int, list[str]]] = queue.SimpleQueue()
        for number, gpus in enumerate(share_gpus(settings.workers, settings.gpus_per_job)):
            self.slots.put((number, gpus))
        self._composing = threading.Lock()
        prepare_processes(max(1, num_cpus() // settings.workers))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs. Several threads may call this at once; they share the slots.

        Returns:
            COMPLETED for every job, even if it failed; `run_state` of its folder says how it ended.
        """
        if not job_overrides:
            raise ValueError("there is no job to run: a range such as seed=range(3,3) has no values")
        jobs = [self._prepare(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        with ThreadPoolExecutor(min(self.config.sweep.workers, len(jobs))) as threads:
            for done in [threads.submit(self._run, job) for job in jobs]:
                done.result()
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]

    @property
    def stopping(self) -> threading.Event:
        """Once set, all jobs save and end, and no other one starts."""
        return self.runner.stopping

    def kill(self) -> None:
        """End the jobs that are saving."""
        self.runner.killing.set()

    def close(self) -> None:
        """After the last launch."""
        self.board.close()
        self.runner.close()

    def _prepare(self, overrides: Sequence[str], number: int) -> Job:
        with self._composing:  # Hydra is not thread-safe
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
        """CPU threads for each process of a job: all slots share the CPUs evenly."""
        devices = str(config.trainer.devices)
        processes = self.config.sweep.workers * (int(devices) if devices.isdigit() else 1)
        return max(1, num_cpus() // processes)


def num_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_gpus(workers: int, gpus_per_job: int) -> list[list[str]]:
    """The GPUs of each slot, as in CUDA_VISIBLE_DEVICES; ValueError if there are too few."""
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
    """Write `.hydra/` as Hydra does for a single run: the config, the choices, and what was typed."""
    place = folder / ".hydra"
    place.mkdir(parents=True, exist_ok=True)
    task: Any = config.copy()
    with open_dict(task):
        hydra = task.pop("hydra")
    with open_dict(hydra):
        for key in "help", "hydra_help":
            hydra.pop(key, None)
    OmegaConf.save(list(overrides), place / "overrides.yaml")  # first: `check_vacant` knows the folder by it
    OmegaConf.save({"hydra": hydra}, place / "hydra.yaml")
    OmegaConf.save(task, place / "config.yaml")
