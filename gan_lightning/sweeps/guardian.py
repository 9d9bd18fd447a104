"""End the jobs of a sweep that was killed. This is a small process that outlives the sweep.

`job.py` runs it as a script. It reads a line per process group, `+1234` when a job starts and `-1234` when it has
ended. The kernel closes the pipe when the sweep is gone, for whatever reason; then the jobs that still run are ended.
"""

import os
import signal
import sys
import time

GRACE = 15  # seconds for a job to save its checkpoint


def main() -> None:
    groups = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    if groups:
        time.sleep(1)  # a job that has just started has no group yet
    for group in groups:
        send(group, signal.SIGTERM)
    end = time.monotonic() + GRACE
    while groups and time.monotonic() < end:
        time.sleep(0.1)
        groups = {group for group in groups if send(group, 0)}
    for group in groups:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Signal a process group; False if none of it is left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
