"""The processes of a run: which one this is, and whether the first one is still there."""

import os
import time

from gan_lightning.cli.errors import UsageError

PARENT = os.getppid()  # asked for by ranks above 0, which are started from anew
# What launchers tell the processes that they start, and from which number on a variable says that there are others.
LAUNCHER = {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "NODE_RANK": 1, "SLURM_STEP_NUM_TASKS": 2, "SLURM_PROCID": 1}
LEFT_OVER = {
    **dict.fromkeys(("RANK", "LOCAL_RANK"), ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")),
    **dict.fromkeys(("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), ("SLURM_JOB_ID", "SLURM_STEP_ID")),
}


def check_launcher() -> None:
    """Take no notice of empty variables of a launcher.

    Raises:
        UsageError: for those that are no numbers, or left over from a launcher that has not started this process.
    """
    for name in LAUNCHER:
        if (value := os.environ.get(name)) == "":
            del os.environ[name]
        elif value and not value.isdecimal():
            raise UsageError(f"{name}={value} in the environment is no number; unset {name}")
    for name, needed in LEFT_OVER.items():
        missing = [other for other in needed if other not in os.environ]
        if missing and int(os.environ.get(name, -1)) >= LAUNCHER[name]:
            raise UsageError(
                f"{name}={os.environ[name]} in the environment is left over from a launcher, which would have set "
                f"{', '.join(missing)} as well; unset {name}"
            )
    number = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    if number >= int(os.environ.get("WORLD_SIZE", number + 1)):
        names = " ".join(name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ)
        raise UsageError(f"{names} in the environment do not fit together; without a launcher: unset {names}")


def rank() -> int:
    """The number of this process as torchrun, Lightning or SLURM has set it."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def parent_ends(within: float) -> bool:
    deadline = time.monotonic() + within
    while os.getppid() == PARENT and time.monotonic() < deadline:
        time.sleep(0.1)
    return os.getppid() != PARENT


def end_with_parent() -> None:
    """A rank whose first process is gone would wait for it for half an hour."""
    while not parent_ends(within=60):
        pass
    time.sleep(10)  # a run that ends well has both end at about the same time
    os._exit(1)
