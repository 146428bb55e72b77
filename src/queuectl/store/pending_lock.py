"""pending.lock, which whoever moves a job back, or chooses an id, holds meanwhile (rule 7)."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from queuectl.store import files, private
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory

_NAME = "pending.lock"


class PendingLock:
    """The lock of rule 7, as far as this process holds it."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._dir = directory
        self._holds = 0
        # As pools do: what they need is loaded at their start, and filelock takes a third of that.
        self.waits_in_kernel = False

    @property
    def is_held(self) -> bool:
        """Return whether this process holds the lock."""
        return self._holds > 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, waiting for it; may be nested."""
        fd = -1
        if self._holds == 0:
            with store_errors(f"{self._dir.location}/{_NAME} cannot be locked"):
                fd = self._acquire()
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if fd >= 0:
                os.close(fd)  # which frees the lock

    def _acquire(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            fd = os.open(_NAME, flags, private.FILE_MODE, dir_fd=self._dir.root_fd)
            try:
                self._wait_for(fd)
                # RACE: somebody may have deleted it meanwhile, and others lock a new one; see
                # test_pending_lock_that_a_hand_deletes_is_taken_anew.
                if files.names_inode(self._dir.root_fd, _NAME, os.fstat(fd)):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _wait_for(self, fd: int) -> None:
        if self.waits_in_kernel:
            files.lock(fd, wait=True)
            return
        # Not filelock's FileLock: it makes the directory again if somebody has deleted the store.
        from filelock import lock_descriptor

        lock_descriptor(fd, poll_interval=0.002)

    @contextmanager
    def held_if_free(self) -> Iterator[bool]:
        """Hold the lock if nobody else does; the block gets whether nothing can move back.

        It is not waited for, since its holder may have been stopped. It is not shared with others
        who look, either: a few who look again and again would keep a job from ever moving back.
        """
        with store_errors(f"{self._dir.location}/{_NAME} cannot be locked"):
            found = self._open_to_look()
        with files.closing(found) as fd:
            # RACE: as in _acquire, somebody may have deleted it meanwhile.
            yield fd is None or (
                files.lock(fd) and files.names_inode(self._dir.root_fd, _NAME, os.fstat(fd))
            )

    def _open_to_look(self) -> int | None:
        """Open the file; None if nobody can make it, and so nothing moves."""
        # To read is enough, also for a lock, on a file system that is mounted read-only.
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
            try:
                return os.open(
                    _NAME,
                    flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    private.FILE_MODE,
                    dir_fd=self._dir.root_fd,
                )
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EROFS:
                    raise
        return None
