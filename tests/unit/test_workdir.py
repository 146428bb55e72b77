"""How directories are asked by threads, which may never come back."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectl.worker import workdir
from queuectl.worker.threads import Call
from queuectl.worker.workdir import WorkDirs


class Waker:
    """Counts what is answered."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._answers = threading.Semaphore(0)

    def wake(self) -> None:
        """Count one more."""
        self._answers.release()

    def heard(self) -> None:
        """Wait for the next answer."""
        assert self._answers.acquire(timeout=10)


@pytest.fixture
def waker() -> Waker:
    """Return what is woken."""
    return Waker()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return what a directory that is called hang answers after."""
    event = threading.Event()

    def access(path: bytes, _mode: int) -> bool:
        if path.startswith(b"hang"):
            event.wait(10)
        return True

    monkeypatch.setattr(os, "access", access)
    yield event
    event.set()


def asked(dirs: WorkDirs, path: bytes) -> Call:
    """Ask a directory that has not answered yet."""
    call = dirs.probe(path)
    assert call is not None
    return call


def trusted(dirs: WorkDirs, waker: Waker, path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Enter a local directory, so that it is trusted."""
    monkeypatch.setattr(workdir, "is_local", lambda _: True)
    call = asked(dirs, bytes(path))
    waker.heard()
    assert call.is_done
    monkeypatch.chdir(path)
    dirs.note_entered(bytes(path))
    return bytes(path)


def test_a_local_directory_is_asked_once_in_a_while(
    waker: Waker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something may be mounted there meanwhile."""
    dirs = WorkDirs(waker.wake)
    path = trusted(dirs, waker, tmp_path, monkeypatch)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert dirs.probe(path) is None
    now += 1.0
    assert dirs.probe(path) is not None


def test_a_directory_on_a_server_is_asked_each_time(
    waker: Waker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone a moment later."""
    monkeypatch.setattr(workdir, "is_local", lambda _: False)
    dirs = WorkDirs(waker.wake)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        asked(dirs, bytes(tmp_path))
        waker.heard()
        dirs.note_entered(bytes(tmp_path))


def test_who_asks_a_directory_that_hangs_waits_for_the_same_answer(
    waker: Waker, answers: threading.Event
) -> None:
    """A thread for each job would be too many."""
    dirs = WorkDirs(waker.wake)
    call = asked(dirs, b"hang")
    assert asked(dirs, b"hang") is call
    asked(dirs, b"other")
    waker.heard()
    assert not call.is_done
    answers.set()
    waker.heard()
    assert call.is_done
    assert asked(dirs, b"hang") is not call


def test_many_that_hang_keep_no_job_from_a_directory_that_was_trusted(
    waker: Waker, answers: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more threads wait than is bearable; a new directory is asked when one comes back."""
    monkeypatch.setattr(workdir, "_MAX_THREADS", 2)
    monkeypatch.setattr(workdir, "_TRUST_SECONDS", 0.0)
    dirs = WorkDirs(waker.wake)
    path = trusted(dirs, waker, tmp_path, monkeypatch)
    for name in (b"hang-1", b"hang-2"):
        asked(dirs, name)
    assert dirs.probe(path) is None
    late = asked(dirs, b"late")
    assert not late.is_done
    answers.set()
    for _ in range(3):
        waker.heard()
    assert late.is_done


def test_where_no_thread_can_be_started_a_directory_is_entered_unasked(
    waker: Waker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be without any of this."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert WorkDirs(waker.wake).probe(b"/") is None


@pytest.mark.skipif(not os.path.exists("/proc/self/mountinfo"), reason="needs /proc")
def test_proc_is_no_local_file_system() -> None:
    """It tells what it is made of, as a server would."""
    assert not workdir.is_local("/proc")


@pytest.mark.skipif(not os.path.exists("/dev/shm"), reason="needs a tmpfs")
def test_memory_is_a_local_file_system() -> None:
    """It needs nobody to answer."""
    assert workdir.is_local("/dev/shm")
