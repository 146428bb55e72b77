"""Write without waiting for whoever reads it: what cannot be written at once is dropped, counted.

A pipe that nobody reads, or a terminal that is stopped by Ctrl-S, must not hold up a job.
"""

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socket import socket

_FULL = (errno.EAGAIN, errno.ENOSPC, errno.EDQUOT)


class Outlet:
    """A descriptor, mostly stderr, that others write to as well, other programs among them.

    ``dropped`` counts the lines that could not be written and of which nobody knows yet.
    """

    def __init__(self, fd: int) -> None:
        """Take the descriptor, which is left as it is.

        To make it non-blocking would do so for the shell and all others that share it. Linux opens
        pipes and terminals once more, for us alone; a socket is asked not to block with each write.
        """
        self.dropped = 0
        self._fd = fd
        self._own_fd = -1
        self._socket: socket | None = None
        self._is_in_line = False  # a part of a line is written, and its rest was dropped
        self._write = self._writer()

    def close(self) -> None:
        """Free what was opened; the descriptor itself stays."""
        if self._own_fd >= 0:
            os.close(self._own_fd)
            self._own_fd = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._write = self._write_when_polled

    def _writer(self) -> Callable[[bytes], int]:
        """Return what writes a few bytes, or raises BlockingIOError."""
        try:
            mode = os.fstat(self._fd).st_mode
            if stat.S_ISSOCK(mode):
                return self._socket_writer()
            if not stat.S_ISFIFO(mode) and not os.isatty(self._fd):
                return lambda data: os.write(self._fd, data)
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            self._own_fd = os.open(f"/proc/self/fd/{self._fd}", flags)
        except OSError:  # no /proc, somebody else's terminal, no descriptor left
            return self._write_when_polled
        return lambda data: os.write(self._own_fd, data)

    def _socket_writer(self) -> Callable[[bytes], int]:
        from socket import MSG_DONTWAIT, socket

        own = self._socket = socket(fileno=os.dup(self._fd))
        return lambda data: own.send(data, MSG_DONTWAIT)

    def _write_when_polled(self, data: bytes) -> int:
        """Write where that can be done at once; another writer may be faster, and then it waits."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self._fd, data)

    def write(self, lines: bytes, dropped_line: Callable[[int], bytes]) -> None:
        """Write lines, by one call where they are short, or drop them.

        ``dropped_line`` returns what says that so many lines were dropped; it comes first.
        """
        if not self.catch_up(dropped_line) or not self._put(lines):
            self.dropped += lines.count(b"\n")

    def catch_up(self, dropped_line: Callable[[int], bytes]) -> bool:
        """Say how many lines were dropped, if any were; return whether nothing is left to say."""
        if self.dropped and self._put(dropped_line(self.dropped)):
            self.dropped = 0
        return not self.dropped

    def _put(self, lines: bytes) -> bool:
        """Write lines; return False where not all of them could be written."""
        left = b"\n" + lines if self._is_in_line else lines
        while left:
            try:
                # So much a pipe takes whole or not at all, and not mixed with what others write.
                written = self._write(left[: select.PIPE_BUF])
            except OSError as error:
                # Else the terminal or the pipe is gone, and nobody is left who could be told.
                return error.errno not in _FULL
            left = left[written:]
            self._is_in_line = bool(left)
        return True
