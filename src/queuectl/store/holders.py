"""Find the commands of a document whose worker is gone, and end them.

Source: proc(5). Elsewhere than on Linux nothing tells who holds a file, and none is found.
"""

import os
import time
from collections.abc import Collection
from contextlib import suppress

from queuectl import procgroup


def holders(document: os.stat_result, name: str, number: int) -> set[int] | None:
    """Return the processes that inherited a document under a number.

    None is told where a process holds it under another number: then a worker is about to settle it,
    or somebody looks at it at this moment.
    """
    found: set[int] = set()
    for pid in _processes():
        with suppress(OSError):  # it has ended, or is somebody else's
            held = _numbers(pid, document, name)
            if held and number not in held:
                return None
            if held:
                found.add(pid)
    return found


def session_leaders(job_id: str, attempt: int, store: os.stat_result) -> set[int]:
    """Return the processes that lead a session and were started as the command of an attempt.

    The store's directory may be reached by any path. A command leads a session; what it leaves
    behind, having left its session in the way of daemons, does not.
    """
    lines = {f"QUEUECTL_JOB_ID={job_id}".encode(), f"QUEUECTL_ATTEMPT={attempt}".encode()}
    prefix = b"QUEUECTL_STORE="
    found: set[int] = set()
    for pid in _processes():
        with suppress(OSError):  # it has ended, or is somebody else's
            if os.getsid(pid) != pid:
                continue
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
            if not lines.issubset(variables):
                continue
            for each in variables:
                if each.startswith(prefix):
                    status = os.stat(each.removeprefix(prefix))
                    if (status.st_ino, status.st_dev) == (store.st_ino, store.st_dev):
                        found.add(pid)
    return found


def _processes() -> list[int]:
    try:
        pids = [int(each) for each in os.listdir("/proc") if each.isdigit()]
    except FileNotFoundError:
        return []
    return [pid for pid in pids if pid != os.getpid()]


def age_seconds(pid: int) -> float:
    """Return for how long a process has been there, by no clock that can be set; 0 if it is not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            started = int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def groups_of(pids: Collection[int]) -> set[int]:
    """Return the process groups of processes, but for our own."""
    groups = set()
    for pid in pids:
        with suppress(ProcessLookupError):
            groups.add(os.getpgid(pid))
    return groups - {os.getpgrp()}


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
    """End process groups: SIGTERM, the grace, SIGKILL; return when they are gone.

    One whose processes have all ended gets no signal any more: its number may be another's.
    """
    left = _members(groups)

    def lives() -> bool:
        nonlocal left
        found = _members(left)
        # A process that was there before: the number may be that of another group by now.
        left = {each: found[each] for each in found if not found[each].isdisjoint(left[each])}
        return bool(left)

    for max_seconds in procgroup.end_by_signals(
        lambda number: signal_groups(left, number), lives, grace_seconds
    ):
        time.sleep(min(max_seconds, procgroup.CHECK_SECONDS))


def _members(groups: Collection[int]) -> dict[int, set[tuple[int, int]]]:
    """Return the living processes of groups that have any, each with when it started."""
    found: dict[int, set[tuple[int, int]]] = {}
    for pid in _processes():
        with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            if fields[0] not in (b"Z", b"X") and (group := int(fields[2])) in groups:
                found.setdefault(group, set()).add((pid, int(fields[19])))
    return found


def signal_groups(groups: Collection[int], *numbers: int) -> None:
    """Send signals to process groups, each to all before the next one."""
    for number in numbers:
        for group in groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
