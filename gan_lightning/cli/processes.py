"""The processes of a run: which one this is, and whether the first one still runs."""

import os
import time
from collections.abc import Mapping

from gan_lightning.cli.errors import UsageError

FULL_ERROR = "HYDRA_FULL_ERROR"  # 1: Hydra raises errors, instead of printing them and exiting
PARENT = os.getppid()  # noted when a rank above 0 starts
OF_TORCH = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
OF_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_ID")
# From this number on a variable means that there are other processes; their launcher has set the others as well.
TOGETHER = {
    "RANK": (0, OF_TORCH),
    "LOCAL_RANK": (0, OF_TORCH),
    "SLURM_STEP_NUM_TASKS": (2, OF_SLURM),
    "SLURM_PROCID": (1, OF_SLURM),
}
NUMBERS = (*TOGETHER, "WORLD_SIZE", "NODE_RANK")


def check_launcher() -> None:
    """Remove empty variables; raise UsageError for one that is no number, or left over from another launcher."""
    for name in (*NUMBERS, "SOURCE_DATE_EPOCH"):  # torch reads the last one when it is imported
        if (value := os.environ.get(name)) == "":
            del os.environ[name]
        elif value and not value.isdecimal():
            raise UsageError(f"{name}={value} in the environment is not a number; unset {name}")
    for name, (least, needed) in TOGETHER.items():
        missing = [other for other in needed if other not in os.environ]
        if missing and int(os.environ.get(name, -1)) >= least:
            raise UsageError(
                f"{name}={os.environ[name]} in the environment is left over from a launcher, which would also have "
                f"set {', '.join(missing)}; unset {name}"
            )
    number = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    if number >= int(os.environ.get("WORLD_SIZE", number + 1)):
        names = " ".join(name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ)
        raise UsageError(f"{names} in the environment do not fit together; without a launcher: unset {names}")


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a run of its own: with a launcher's variables, Lightning would wait for other ranks."""
    names = {*NUMBERS, *OF_TORCH, FULL_ERROR}
    prefixes = ("SLURM_", "TORCHELASTIC_")
    return {name: value for name, value in environment.items() if name not in names and not name.startswith(prefixes)}


def rank() -> int:
    """The number of this process, as torchrun, Lightning or SLURM sets it; 0 without them."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def parent_ends(within: float) -> bool:
    """Wait for the end of the process that started this one, for so many seconds; True if it came."""
    deadline = time.monotonic() + within
    while os.getppid() == PARENT and time.monotonic() < deadline:
        time.sleep(0.1)
    return os.getppid() != PARENT


def end_with_parent() -> None:
    """Exit once the first process is gone; torch would wait half an hour for it."""
    while not parent_ends(within=60):
        pass
    time.sleep(10)  # a run that ends well has both end at about the same time
    os._exit(1)
