"""Write new documents into the files of old ones, so that settling makes and frees no inode.

A document is settled by exchanging it for a new one in one step (renameat2 with RENAME_EXCHANGE);
the old file stays in tmp/ and takes a later document. Making a file and freeing another for each
job costs three times as much, and ext4 creates slowly where files were deleted a moment ago.

An old file is written to again only when the exchange that freed it is durable. Else a power
failure could bring the old name back with the words of another job under it.

Where the system or the file system cannot exchange, a new file is renamed over the old one.
"""

import errno
import os
import sys
import time
from contextlib import suppress

from queuectl.store import files

_AT_ONCE = 512  # spare files that one worker keeps
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


class Spares:
    """Keep the spare files of one worker in tmp/."""

    def __init__(self, tmp_fd: int) -> None:
        """Take the open tmp/; no file is made before it is needed."""
        self._tmp_fd = tmp_fd
        self._ready: list[str] = []
        self._freed: list[str] = []
        self._made = 0
        self._can_exchange = sys.platform == "linux"

    def write(self, data: bytes) -> tuple[str, int]:
        """Write a document to a file in tmp/ and lock it; return name and descriptor, not synced.

        Raises: OSError.
        """
        while self._ready:
            name = self._ready.pop()
            fd = self._open_spare(name)
            if fd is None:
                continue
            status = os.fstat(fd)
            if status.st_nlink != 1:
                # Somebody has linked the document that this was, as a backup may: leave it to them.
                os.close(fd)
                self.drop(name)
                continue
            try:
                files.write_all(fd, data)
                if status.st_size > len(data):
                    os.ftruncate(fd, len(data))
            except BaseException:
                os.close(fd)
                self._ready.append(name)
                raise
            return name, fd
        self._made += 1
        name = f"spare.{os.getpid()}.{time.monotonic_ns()}.{self._made}"
        fd = files.write_synced(self._tmp_fd, name, data, sync=False)
        files.lock(fd)
        return name, fd

    def _open_spare(self, name: str) -> int | None:
        try:
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tmp_fd)
        except FileNotFoundError:
            return None  # tidied away after a long rest
        if files.lock(fd):
            return fd
        # A process that outlived its command holds the lock of the document that this file was.
        os.close(fd)
        os.unlink(name, dir_fd=self._tmp_fd)
        return None

    def put_in_place(self, name: str, directory_fd: int, document: str) -> None:
        """Put a written and synced file in the place of a document, in one step."""
        if self._can_exchange:
            try:
                files.exchange(self._tmp_fd, name, directory_fd, document)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._can_exchange = False
            else:
                self._freed.append(name)
                return
        os.rename(name, document, src_dir_fd=self._tmp_fd, dst_dir_fd=directory_fd)

    def synced(self) -> None:
        """Take note that everything exchanged so far is durable."""
        self._ready += self._freed
        self._freed.clear()
        for name in self._ready[_AT_ONCE:]:
            self.drop(name)
        del self._ready[_AT_ONCE:]

    def drop(self, name: str) -> None:
        """Delete a written file that is not to be used."""
        with suppress(OSError):  # what stays is tidied away a day later
            os.unlink(name, dir_fd=self._tmp_fd)

    def remove(self) -> None:
        """Delete the spare files: the worker leaves."""
        for name in self._ready + self._freed:
            self.drop(name)
        self._ready.clear()
        self._freed.clear()
