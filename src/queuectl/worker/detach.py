"""Runs a pool in the background, apart from the terminal and from whatever it was started with."""

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from queuectl.errors import QueuectlError, StoreError
from queuectl.nonblocking import NonBlockingWriter
from queuectl.store.logs import LogDir
from queuectl.text import encoded, printable
from queuectl.worker.events import EventLog
from queuectl.worker.restart import EXIT_BUG

_MAX_DESCRIPTORS = 4096  # are looked at if the system does not list the open ones


def prepare_descriptors() -> list[int]:
    """Open 0, 1 and 2 if they are closed, so that no other file gets these numbers.

    Returns: the other descriptors that we were started with; commands do not inherit them.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    inherited = []
    for fd in _descriptors():
        with suppress(OSError):  # the one that was used to list them is closed again
            if fd > 2 and os.get_inheritable(fd):
                os.set_inheritable(fd, False)
                inherited.append(fd)
    return inherited


def _descriptors() -> Iterable[int]:
    """Return the numbers of all open descriptors, or of all that may be open."""
    with suppress(OSError):  # on Linux it is a part of /proc, which may be missing
        found = [int(name) for name in os.listdir("/dev/fd")]
        if sys.platform == "linux":
            return found  # other systems may list the first three only
    return range(min(os.sysconf("SC_OPEN_MAX"), _MAX_DESCRIPTORS))


def run_detached(
    run: Callable[[int], int], logs: LogDir, text: str, inherited: Collection[int]
) -> int:
    """Run a pool in the background; return 0 when its workers are registered.

    ``run`` gets a descriptor to close by then, and writes a byte to it for each worker. ``text``,
    unless it is empty, begins the line that is printed then. ``inherited`` is closed in the
    background: somebody may wait for the other end of a pipe, or for a lock.
    Raises: StoreError if no worker could be registered.
    """
    path, log_fd = logs.worker_log.path, logs.worker_log.open()
    ready_fd, ready_write_fd = os.pipe()
    pid = os.fork()
    if pid:
        os.close(log_fd)
        os.close(ready_write_fd)
        os.waitpid(pid, 0)
        has_started = bool(os.read(ready_fd, 1))
        while os.read(ready_fd, 512):  # until all have closed it, or are gone
            pass
        os.close(ready_fd)
        if not has_started:
            raise StoreError(f"no worker could start; {path} says why")
        if text:
            with suppress(OSError):
                line = printable(f"{text} in the background, logging to {path}")
                os.write(2, encoded(f"{line}\n"))
        return 0
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    if os.fork():
        os._exit(0)
    _leave_the_terminal(log_fd, inherited)
    log = EventLog("supervisor", NonBlockingWriter(2), quiet=False)
    code = EXIT_BUG
    try:
        code = run(ready_write_fd)
    except QueuectlError as error:
        log.error(f"cannot work: {error}")
        code = error.exit_code
    except BaseException:
        log.exception()
        raise
    finally:
        os._exit(code)


def _leave_the_terminal(log_fd: int, inherited: Collection[int]) -> None:
    """Close what this process was started with; stderr becomes the log."""
    for fd in inherited:
        os.close(fd)
    os.chdir("/")
    null_fd = os.open(os.devnull, os.O_RDWR)
    for number, fd in ((0, null_fd), (1, null_fd), (2, log_fd)):
        os.dup2(fd, number)
    os.close(null_fd)
    os.close(log_fd)
