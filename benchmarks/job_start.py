"""Seconds from the start of a job to its first iteration: of a run of its own, and of the jobs of a sweep.

    python benchmarks/job_start.py

Needs MNIST. Interleaved, so that a noisy machine is noisy for both; medians.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

SHORT = ["trainer=debug", "metrics=none", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
BEGUN = re.compile(r"^(\S+ \S+) INFO +gan_lightning.callbacks.console: [\d,]+ real images", re.MULTILINE)
JOB = re.compile(r"^(\S+ \S+) INFO +job \d+: trainer=debug", re.MULTILINE)


def moment(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp()


def first_iteration(run: Path) -> float:
    """When a run had said what it trains on, which it does before its first iteration."""
    found = BEGUN.search((run / "train.log").read_text(encoding="utf-8"))
    assert found, f"{run}/train.log does not say when training began"
    return moment(found[1])


def own_run(folder: Path) -> float:
    started = time.time()
    command = [sys.executable, "-m", "gan_lightning", *SHORT, f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    return first_iteration(folder) - started


def sweep(folder: Path, jobs: int) -> list[float]:
    """Of each job of a sweep, one after the other; the first one waits for what all are forked from."""
    seeds = f"seed=range({jobs})"
    command = [sys.executable, "-m", "gan_lightning", "-m", *SHORT, seeds, f"hydra.sweep.dir={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    started = [moment(stamp) for stamp in JOB.findall((folder / "sweep.log").read_text(encoding="utf-8"))]
    return [first_iteration(folder / str(job)) - begun for job, begun in enumerate(started)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    alone, first, others = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            alone.append(own_run(Path(folder) / f"run_{number}"))
            begun, *rest = sweep(Path(folder) / f"sweep_{number}", jobs=3)
            first.append(begun)
            others += rest
    for name, seconds in ("a run of its own", alone), ("the first job of a sweep", first), ("each other job", others):
        print(f"{name:26} {statistics.median(seconds):5.1f} s  ({min(seconds):.1f} to {max(seconds):.1f})")


if __name__ == "__main__":
    main()
