"""The working directories of jobs, entered only once they have answered.

A directory on a dead mount, or on a server that is gone, answers no system call for minutes or for
ever. So a thread looks at it first, and only its job waits meanwhile.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

from queuectl.worker.threads import Call, Threads

PATIENCE_SECONDS = 5.0
_TRUST_SECONDS = 1.0  # something may be mounted on a local directory after that
_MAX_TRUSTED = 1024
_MAX_THREADS = 32
# File systems that need no other machine or program to answer. Source: proc(5), mountinfo.
_LOCAL = frozenset((
    b"bcachefs", b"btrfs", b"exfat", b"ext2", b"ext3", b"ext4", b"f2fs", b"jfs", b"overlay",
    b"ramfs", b"squashfs", b"tmpfs", b"vfat", b"xfs", b"zfs",
))  # fmt: skip


class WorkDirs:
    """The directories in which the jobs of one process run, and which of them answer."""

    def __init__(self, wake: Callable[[], object]) -> None:
        """Call ``wake``, in a thread, when a directory has answered."""
        self._threads = Threads(_MAX_THREADS, wake)
        self._trusted_until: dict[bytes, float] = {}
        self._calls: dict[bytes, Call] = {}

    def probe(self, path: bytes) -> Call | None:
        """Return what is done when a directory has answered, None if it may be entered at once."""
        trusted_until = self._trusted_until.get(path)
        if trusted_until is not None and trusted_until > time.monotonic():
            return None
        call = self._calls.get(path)
        if call is not None and not call.is_done:
            return call
        # Each thread that waits for a dead directory may be lost. Without any, and without one to
        # spare for a directory that has answered before, it is entered as if there were none.
        can_call = self._threads.can_call if trusted_until is None else self._threads.has_free
        if not can_call():
            return None
        self._calls = {path: each for path, each in self._calls.items() if not each.is_done}
        # access(2) looks at what chdir(2) looks at; that says what is wrong.
        call = self._calls[path] = self._threads.call(lambda: os.access(path, os.X_OK))
        return call

    def note_entered(self, path: bytes) -> None:
        """Trust the directory that this process is in for a while, if its file system is local."""
        if is_local("."):
            if len(self._trusted_until) >= _MAX_TRUSTED:
                self._trusted_until.clear()
            self._trusted_until[path] = time.monotonic() + _TRUST_SECONDS


def is_local(path: str) -> bool:
    """Return whether a directory is on a local file system; False if there is no /proc.

    Source: proc(5), fdinfo and mountinfo. A device number would not do: btrfs has many.
    """
    with suppress(OSError, ValueError, AttributeError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
                info = dict(line.split()[:2] for line in file)
        finally:
            os.close(fd)
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                fields = line.split()
                if fields[0] == info[b"mnt_id:"]:
                    return fields[fields.index(b"-") + 1] in _LOCAL
    return False
