"""Stops the workers of a store, and waits until they are gone."""

import os
import select
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from queuectl.clock import poll_milliseconds
from queuectl.errors import TimeoutExpired
from queuectl.store.protocol import Store
from queuectl.store.values import WorkerRecord

_SLOW_SECONDS = 5.0
_POLL_SECONDS = 0.02
_EXIT_SECONDS = 2.0


def stop_all(
    store: Store,
    *,
    now: bool,
    timeout_seconds: float | None,
    on_slow: Callable[[Sequence[WorkerRecord]], object] | None = None,
) -> list[str]:
    """Ask the workers that are live now to stop, and wait until they are gone.

    ``on_slow`` is called once with the workers that do not stop within seconds.
    Returns: the names of all. Raises: TimeoutExpired, which names the workers still running.
    """
    records = store.workers.live()
    names = sorted(record.name for record in records)
    # A record is removed a moment before its process ends.
    process_fds = _process_fds(records)
    try:
        store.stop_requests.request(now=now)
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        waited_for, slow_at = set(names), time.monotonic() + _SLOW_SECONDS
        while left := [record for record in store.workers.live() if record.name in waited_for]:
            waited_for = {record.name for record in left}
            if on_slow is not None and time.monotonic() >= slow_at:
                on_slow(left)
                on_slow = None
            if deadline is not None and time.monotonic() >= deadline:
                text = ", ".join(sorted(waited_for))
                raise TimeoutExpired(f"still running: {text}; they stop when their jobs are done")
            time.sleep(_POLL_SECONDS)
        _wait_for_exits(process_fds)
    finally:
        for fd in process_fds:
            os.close(fd)
    return names


def _process_fds(records: Iterable[WorkerRecord]) -> list[int]:
    """Open the processes of the workers on this host, if the system can."""
    fds = []
    host = os.uname().nodename
    for record in records:
        if record.host == host:
            with suppress(AttributeError, OSError):  # no pidfd here, or it has just ended
                fds.append(os.pidfd_open(record.pid))
    return fds


def _wait_for_exits(process_fds: Collection[int]) -> None:
    """Wait until processes have ended, up to a limit: a pid may be that of another container."""
    poll = select.poll()
    for fd in process_fds:
        poll.register(fd, select.POLLIN)
    left = set(process_fds)
    deadline = time.monotonic() + _EXIT_SECONDS
    while left and (seconds := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(poll_milliseconds(seconds)):
            poll.unregister(fd)
            left.discard(fd)
