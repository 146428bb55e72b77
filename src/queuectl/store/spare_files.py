"""Write new documents into the files of old ones, so that settling makes and frees no inode.

A document is settled by exchanging it for a new one in one step (renameat2 with RENAME_EXCHANGE);
the old file stays in tmp/ and takes a later document. Making a file and freeing another for each
job costs three times as much, and ext4 creates slowly where files were deleted a moment ago.

An old file is written to again only when the exchange that freed it is durable. Else a power
failure could bring the old name back with the words of another job under it.

A process that leaves blanks its spare files and leaves them to whoever comes next, as LEFT tells:
deleting hundreds would take longer than all else when a pool ends, and slow down the file system
for those who make files there. One that nobody has taken for a day is tidied away.

Where the system or the file system cannot exchange, a new file is renamed over the old one.
"""

import errno
import os
import stat
import sys
from contextlib import suppress
from itertools import islice

from queuectl.store import files, private

LEFT = "spare.left."  # what the name of a file begins with that belongs to nobody
_AT_ONCE = 512  # spare files that one process keeps
_BLOCK = 4096  # a file that is larger is deleted, for others would carry its size along


class SpareFiles:
    """Keep the spare files of one process in tmp/."""

    def __init__(self, tmp_fd: int, processing_fd: int) -> None:
        self._tmp_fd = tmp_fd
        self._processing_fd = processing_fd
        self._ready: list[str] = []
        self._freed: list[str] = []
        self._left: list[str] | None = None  # by others, None before the first look
        # Whatever process a pid stands for, in whatever container: no name is that of another's.
        self._token = os.urandom(8).hex()
        self._named = 0
        self._can_exchange = sys.platform == "linux"

    def write(self, data: bytes) -> tuple[str, int]:
        """Write a document to a file in tmp/ and lock it; return name and descriptor, not synced.

        Raises: OSError.
        """
        try:
            return self._write(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._free_room():
                raise
            return self._write(data)

    def _write(self, data: bytes) -> tuple[str, int]:
        while (name := self._take()) is not None:
            fd = self._open_spare(name)
            if fd is None:
                continue
            status = os.fstat(fd)
            if not private.is_ours_alone(status):
                # Somebody has linked the document that this was, as a backup may: leave it to them.
                os.close(fd)
                self.drop(name)
                continue
            try:
                files.write_all(fd, data)
                if status.st_size > len(data):
                    os.ftruncate(fd, len(data))
                if stat.S_IMODE(status.st_mode) != private.FILE_MODE:  # as a hand has made it
                    os.fchmod(fd, private.FILE_MODE)
            except BaseException:
                os.close(fd)
                self._ready.append(name)
                raise
            return name, fd
        name = self._new_name()
        fd = files.write_synced(self._tmp_fd, name, data, sync=False)
        files.lock(fd)
        return name, fd

    def _new_name(self) -> str:
        self._named += 1
        return f"spare.{os.getpid()}.{self._token}.{self._named}"

    def _take(self) -> str | None:
        """Return the name of a spare file that is ours, None where there is none."""
        if self._ready:
            return self._ready.pop()
        if self._left is None:
            self._left = self._look_for_left()
        while self._left:
            # RACE: by another name it is ours alone; whoever comes second finds this one gone.
            name = self._new_name()
            with suppress(FileNotFoundError):
                left = self._left.pop()
                os.rename(left, name, src_dir_fd=self._tmp_fd, dst_dir_fd=self._tmp_fd)
                return name
        return None

    def _look_for_left(self) -> list[str]:
        with files.entries(self._tmp_fd) as found:
            names = (
                entry.name
                for entry in found
                if entry.name.startswith(LEFT) and entry.is_file(follow_symlinks=False)
            )
            return list(islice(names, _AT_ONCE))

    def _open_spare(self, name: str) -> int | None:
        try:
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._tmp_fd)
        except OSError as error:
            # Tidied away after a long rest, or no file: a hand has made it.
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES):
                return None
            self._ready.append(name)
            raise
        if files.lock(fd):
            return fd
        # A process that outlived its command holds the lock of the document that this file was.
        os.close(fd)
        self.drop(name)
        return None

    def put_in_place(self, name: str, document: str) -> None:
        """Put a written and synced file in the place of a document in progress, in one step."""
        if self._can_exchange:
            try:
                files.exchange(self._tmp_fd, name, self._processing_fd, document)
            except OSError as error:
                if error.errno not in files.UNSUPPORTED:
                    raise
                self._can_exchange = False
            else:
                self._freed.append(name)
                return
        os.rename(name, document, src_dir_fd=self._tmp_fd, dst_dir_fd=self._processing_fd)

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

    def _free_room(self) -> bool:
        """Delete spare files, also those of other processes: they lie on room that the disk lacks.

        One that holds a document is locked. Returns whether any was deleted.
        """
        freed = False
        with files.entries(self._tmp_fd) as found:
            names = [entry.name for entry in found if entry.name.startswith("spare.")]
        for name in names:
            with files.closing(files.open_document(self._tmp_fd, name)) as fd:
                # RACE: its process finds the lock held, or the file gone, and makes another; see
                # test_a_full_disk_takes_the_room_of_spare_files.
                if fd is not None and files.lock(fd):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=self._tmp_fd)
                        freed = True
        self._freed.clear()
        return freed

    def leave(self) -> None:
        """Leave the spare files to others: the process ends."""
        try:
            if self._freed and files.sync_file_system(self._tmp_fd):
                self.synced()
        except OSError:
            pass  # then it is not known that they are free
        for name in self._freed:
            self.drop(name)
        for name in self._ready:
            try:
                self._blank(name)
                left = LEFT + self._new_name().removeprefix("spare.")
                os.rename(name, left, src_dir_fd=self._tmp_fd, dst_dir_fd=self._tmp_fd)
            except OSError:
                self.drop(name)
        self._ready.clear()
        self._freed.clear()

    def _blank(self, name: str) -> None:
        """Write over a document of a job that may be purged before the file is used again.

        Raises: OSError, also where the file is not ours alone.
        """
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with files.closing(os.open(name, flags, dir_fd=self._tmp_fd)) as fd:
            status = os.fstat(fd)
            if status.st_size > _BLOCK or not private.is_ours_alone(status):
                raise OSError(errno.EPERM, "not to be written over", name)
            files.write_all(fd, b"\0" * status.st_size)
