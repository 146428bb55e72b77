"""Process groups: which of them live, and how they are ended.

Source: proc(5). In a container whose first process reaps nothing zombies stay for ever, and no
signal ends them; so a group lives as long as it has a process that is none.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

CHECK_SECONDS = 0.02
_KILL_SECONDS = 5.0  # for which the end of a killed process is waited for


def end_by_signals(
    send: Callable[[int], object], is_alive: Callable[[], bool], grace_seconds: float
) -> Iterator[float]:
    """End one or more process groups: SIGTERM, the grace, SIGKILL.

    A stopped process is continued, so that it can take the SIGTERM.
    ``send`` sends a signal; ``is_alive`` returns whether a process is left.
    Yields: while one is left, for how many seconds the caller is to wait at most.
    """
    for signals, seconds in (
        ((signal.SIGTERM, signal.SIGCONT), grace_seconds),
        ((signal.SIGKILL,), _KILL_SECONDS),
    ):
        for number in signals:
            send(number)
        deadline = time.monotonic() + seconds
        while is_alive():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            yield left
        else:
            return


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs as another user now (setuid), and we may not end it
    return True


def has_living(group: int) -> bool | None:
    """Return whether a process group has more than zombies; None if the system does not say."""
    if sys.platform != "linux" or not os.path.exists("/proc/self/stat"):
        return None
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
                if int(its_group) == group and state not in (b"Z", b"X"):
                    return True
    return False
