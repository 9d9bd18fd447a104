"""Ends what a sweep leaves behind when it is killed: a small process of its own that outlives the sweep.

Run as a script by `job.py`. Its input is a line per process group, `+1234` when a job starts and `-1234` when it has
ended. The kernel closes that pipe when the sweep is gone, however it went; what is still running then is ended.
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
        time.sleep(1)  # a job that has just started makes its group
    for group in groups:
        send(group, signal.SIGTERM)
    end = time.monotonic() + GRACE
    while groups and time.monotonic() < end:
        time.sleep(0.1)
        groups = {group for group in groups if send(group, 0)}
    for group in groups:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Signal a process group; False where none of it is left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
