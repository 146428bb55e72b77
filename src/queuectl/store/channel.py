"""Requests to a worker, through a FIFO of its own: to end an attempt, or to stop.

Each is a line.

Source: fifo(7). A write of less than PIPE_BUF bytes arrives whole, and opening a FIFO that nobody
reads fails at once, so a request to a worker that is gone cannot be mistaken for one that arrived.
"""

import errno
import os
import stat
from contextlib import suppress

from queuectl.store import private
from queuectl.store.files import closing

STOP, STOP_NOW = "stop", "stop now"  # no attempt is called so
_FLAGS = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST = 65536  # what a pipe holds


def channel_name(worker: str) -> str:
    """Return what a worker's FIFO is called, beside its record."""
    return f"{worker}.control"


def channel_owner(name: str) -> str | None:
    """Return the worker whose FIFO has such a name, None where it is not one."""
    return name.removesuffix(".control") or None if name.endswith(".control") else None


def open_channel(directory_fd: int, worker: str) -> int:
    """Make a worker's FIFO and return the descriptor that it reads.

    A chmod afterwards would follow a symlink that somebody has put in its place meanwhile.
    Raises: FileExistsError where its name stands for something already; OSError.
    """
    name = channel_name(worker)
    before = os.umask(0o777 & ~private.FILE_MODE)
    try:
        os.mkfifo(name, private.FILE_MODE, dir_fd=directory_fd)
    finally:
        os.umask(before)
    # For writing as well: a FIFO whose last writer leaves would be readable for ever.
    return os.open(name, os.O_RDWR | _FLAGS, dir_fd=directory_fd)


def is_read(directory_fd: int, worker: str) -> bool:
    """Return whether a worker has its FIFO open, as each has until it is gone."""
    with suppress(OSError):
        os.close(os.open(channel_name(worker), os.O_WRONLY | _FLAGS, dir_fd=directory_fd))
        return True
    return False


def send(directory_fd: int, worker: str, line: str) -> bool:
    """Write a line to a worker's FIFO; False where it is gone or full. Raises: OSError."""
    try:
        fd = os.open(channel_name(worker), os.O_WRONLY | _FLAGS, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ELOOP):
            return False
        raise
    with closing(fd), suppress(BlockingIOError, BrokenPipeError):
        status = os.fstat(fd)
        if stat.S_ISFIFO(status.st_mode) and status.st_uid == os.geteuid():
            os.write(fd, f"{line}\n".encode())
            return True
    return False


def receive(fd: int) -> list[str]:
    """Return the lines that have arrived."""
    try:
        return os.read(fd, _MOST).decode(errors="replace").split("\n")
    except BlockingIOError:
        return []
