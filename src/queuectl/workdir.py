"""Find out whether the directory of a job can be entered, without waiting for one that hangs.

A directory on a server that is gone, or on a dead mount, answers no system call for minutes or for
ever. So one that may be such is asked by a thread first, and its job waits alone meanwhile.
"""

import math
import os
import threading
import time
from contextlib import suppress
from queue import SimpleQueue

from queuectl.loop import Waker

_PATIENCE_SECONDS = 5.0
# A local directory is asked again after so long: something may be mounted there by then.
_TRUST_SECONDS = 1.0
_MOUNTS_SECONDS = 60.0  # the number of a device may be another's after so long
_MOST_TRUSTED = 1024
_MOST_THREADS = 32
# File systems that need no other machine or program to answer. Source: proc(5), mountinfo.
_LOCAL = frozenset((
    b"bcachefs", b"btrfs", b"exfat", b"ext2", b"ext3", b"ext4", b"f2fs", b"jfs", b"overlay",
    b"ramfs", b"squashfs", b"tmpfs", b"vfat", b"xfs", b"zfs",
))  # fmt: skip


class Question:
    """A directory that a thread asks, as long as it takes."""

    def __init__(self, path: bytes) -> None:
        """Begin to wait."""
        self.path = path
        self.is_answered = False
        self._until = time.monotonic() + _PATIENCE_SECONDS

    def left_seconds(self) -> float:
        """Return for how long an answer is to be waited for, 0 or less for no longer."""
        return self._until - time.monotonic()


class WorkDirs:
    """The directories of the jobs of a process, and which of them answer."""

    def __init__(self, waker: Waker) -> None:
        """Take what a thread wakes when it has an answer; none is started before one is needed."""
        self._waker = waker
        self._trusted_until: dict[bytes, float] = {}
        self._questions: dict[bytes, Question] = {}
        self._to_ask: SimpleQueue[Question] = SimpleQueue()
        self._threads = 0
        self._local: set[int] = set()  # the numbers of the devices
        self._local_read_at = -math.inf

    def ask(self, path: bytes) -> Question | None:
        """Return what is to be waited for before a directory is entered, None for nothing."""
        trusted_until = self._trusted_until.get(path)
        if trusted_until is not None and trusted_until > time.monotonic():
            return None
        question = self._questions.get(path)
        if question is None or question.is_answered:
            self._questions = {
                each.path: each for each in self._questions.values() if not each.is_answered
            }
            # Each that is not answered has a thread, which may never come back.
            can_ask = self._threads > len(self._questions) or self._start_thread()
            if not can_ask and (self._threads == 0 or trusted_until is not None):
                return None
            question = self._questions[path] = Question(path)
            self._to_ask.put(question)
        return question

    def _start_thread(self) -> bool:
        if self._threads >= _MOST_THREADS:
            return False
        try:
            threading.Thread(target=self._answer, daemon=True).start()
        except RuntimeError:  # no more processes for this user, and a thread counts as one
            return False
        self._threads += 1
        return True

    def _answer(self) -> None:
        while True:
            question = self._to_ask.get()
            # What chdir looks at, which tells what is wrong.
            with suppress(OSError):
                os.access(question.path, os.X_OK)
            question.is_answered = True
            self._waker.wake()

    def entered(self, path: bytes) -> None:
        """Note that this process is in a directory now that has answered."""
        if self._is_on_local_device():
            if len(self._trusted_until) >= _MOST_TRUSTED:
                self._trusted_until.clear()
            self._trusted_until[path] = time.monotonic() + _TRUST_SECONDS

    def _is_on_local_device(self) -> bool:
        now = time.monotonic()
        try:
            device = os.stat(".").st_dev
            age_seconds = now - self._local_read_at
            if age_seconds >= _TRUST_SECONDS and (
                device not in self._local or age_seconds >= _MOUNTS_SECONDS
            ):
                self._local, self._local_read_at = _local_devices(), now
        except OSError:  # or there is no /proc
            return False
        return device in self._local


def _local_devices() -> set[int]:
    """Return the numbers of the devices with local file systems. Raises: OSError."""
    devices = set()
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = line.split()
            if fields[fields.index(b"-") + 1] in _LOCAL:
                devices.add(os.makedev(*map(int, fields[2].split(b":"))))
    return devices
