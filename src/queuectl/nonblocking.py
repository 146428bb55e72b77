"""Writes that never wait for the reader: what cannot be written at once is dropped and counted.

A pipe that nobody reads, or a terminal stopped by Ctrl-S, must not hold up a job.
"""

import errno
import os
import select
import stat
from collections.abc import Callable

_FULL = (errno.EAGAIN, errno.ENOSPC, errno.EDQUOT)


class NonBlockingWriter:
    """A writer for a descriptor, mostly stderr, whose flags it leaves as other programs need them.

    ``dropped`` counts the lines that were dropped and not reported yet.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own_fd = -1
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.reopen()

    def reopen(self) -> None:
        """Start afresh: after a fork, or when the descriptor stands for another file."""
        self.close()
        self.dropped = 0
        self._is_mid_line = False  # the rest of a line that was begun has been dropped
        # A poll is no promise for a pipe or a terminal: another writer may fill it first. Linux
        # opens these a second time, so that only our descriptor is non-blocking.
        try:
            mode = os.fstat(self._fd).st_mode
            if stat.S_ISFIFO(mode) or os.isatty(self._fd):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
                self._own_fd = os.open(f"/proc/self/fd/{self._fd}", flags)
        except OSError:  # no /proc, another user's terminal, no descriptor left
            pass

    def close(self) -> None:
        """Close what was opened; the descriptor itself stays open."""
        if self._own_fd >= 0:
            os.close(self._own_fd)
            self._own_fd = -1

    def write(self, lines: bytes, format_dropped: Callable[[int], bytes]) -> None:
        """Write lines or drop them; first write what ``format_dropped`` says of dropped ones."""
        if not self.report_dropped(format_dropped) or not self._write_all(lines):
            self.dropped += lines.count(b"\n")

    def report_dropped(self, format_dropped: Callable[[int], bytes]) -> bool:
        """Report dropped lines, if there are any; return whether none are left to report."""
        if self.dropped and self._write_all(format_dropped(self.dropped)):
            self.dropped = 0
        return not self.dropped

    def _write_all(self, lines: bytes) -> bool:
        """Write lines; return False if some could not be written."""
        left = b"\n" + lines if self._is_mid_line else lines
        while left:
            try:
                # A pipe takes this much in full or not at all, and unmixed with other writes.
                written = self._write_some(left[: select.PIPE_BUF])
            except OSError as error:
                # Any other error means that the terminal or the pipe is gone, and its reader, too.
                return error.errno not in _FULL
            left = left[written:]
            self._is_mid_line = bool(left)
        return True

    def _write_some(self, data: bytes) -> int:
        """Write a few bytes at once. Raises: OSError, with EAGAIN if they would have to wait."""
        if self._own_fd >= 0:
            return os.write(self._own_fd, data)
        # A socket that polls as writable has room for many such writes, whoever makes them.
        if not self._poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self._fd, data)
