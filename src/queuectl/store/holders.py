"""Find the commands that hold a document whose worker is gone, and end them.

Source: proc(5). Elsewhere than on Linux nothing tells who holds a file, and none is found.
"""

import os
import signal
import time
from collections.abc import Collection

_CHECK_SECONDS = 0.02
_KILL_SECONDS = 5.0


def groups_holding(document: os.stat_result, name: str, number: int) -> set[int]:
    """Return the process groups of commands that inherited a document under a number.

    None are told where a process holds it under another number: then a worker is about to settle
    it, or somebody looks at it at this moment.
    """
    groups: set[int] = set()
    try:
        pids = [int(each) for each in os.listdir("/proc") if each.isdigit()]
    except FileNotFoundError:
        return groups
    for pid in pids:
        if pid == os.getpid():
            continue
        try:
            held = _numbers(pid, document, name)
            if held and number not in held:
                return set()
            if held:
                groups.add(os.getpgid(pid))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is somebody else's
    return groups


def _numbers(pid: int, document: os.stat_result, name: str) -> set[int]:
    """Return under which numbers a process has a document open. Raises: OSError."""
    directory = f"/proc/{pid}/fd"
    numbers = set()
    for number in os.listdir(directory):
        path = f"{directory}/{number}"
        try:
            # By name first: a stat of any file that somebody has open may wait for a dead server.
            if os.path.basename(os.readlink(path)) == name:
                status = os.stat(path)
                if (status.st_ino, status.st_dev) == (document.st_ino, document.st_dev):
                    numbers.add(int(number))
        except FileNotFoundError:
            continue
    return numbers


def end_groups(groups: Collection[int], grace_seconds: float) -> None:
    """End process groups: SIGTERM, the grace, SIGKILL; return when they are gone."""
    for numbers, seconds in (
        ((signal.SIGTERM, signal.SIGCONT), grace_seconds),
        ((signal.SIGKILL,), _KILL_SECONDS),
    ):
        for number in numbers:
            for group in groups:
                _signal(group, number)
        deadline = time.monotonic() + seconds
        while any(_signal(group, 0) for group in groups):
            if time.monotonic() >= deadline:
                break
            time.sleep(_CHECK_SECONDS)
        else:
            return


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether there was one that took it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
