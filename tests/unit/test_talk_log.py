"""The event log of workers in the background, which must not grow for ever."""

import fcntl
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from queuectl.clock import utc_now
from queuectl.store import logs
from queuectl.store.logs import WorkerLog


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerLog:
    """Return the log of a store, where ten bytes are long and four are read at a time."""
    monkeypatch.setattr(logs, "_MAX_WORKER_LOG_BYTES", 10)
    monkeypatch.setattr(logs, "_CHUNK", 4)
    return WorkerLog(str(tmp_path / "worker.log"))


def held(tmp_path: Path) -> dict[str, str]:
    """Return what the files beside the logs hold."""
    return {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_long_one_begins_again_for_all_who_write(log: WorkerLog, tmp_path: Path) -> None:
    """Whoever has it open goes on with it, and what it held is kept once."""
    log.bound()
    one, other = log.open(), log.open()
    os.write(one, b"0123456789")
    log.bound()
    assert held(tmp_path) == {"worker.log": "0123456789"}
    os.write(other, b"a")
    log.bound()
    os.write(one, b"b")
    os.write(other, b"c")
    assert held(tmp_path) == {"worker.log": "bc", "worker.log.1": "0123456789a"}
    os.write(one, b"0123456789")
    log.bound()
    assert held(tmp_path) == {"worker.log": "", "worker.log.1": "bc0123456789"}
    assert (tmp_path / "worker.log.1").stat().st_mode & 0o777 == 0o600
    os.close(one)
    os.close(other)


def test_two_pools_do_not_do_it_at_the_same_time(log: WorkerLog, tmp_path: Path) -> None:
    """The second leaves it to the first."""
    fd = log.open()
    os.write(fd, b"more than ten")
    fcntl.flock(fd, fcntl.LOCK_EX)
    log.bound()
    assert held(tmp_path) == {"worker.log": "more than ten"}
    os.close(fd)


@pytest.mark.parametrize("name", ["worker.log", "worker.log.1"])
def test_file_that_is_not_ours_alone_is_left_as_it_is(
    log: WorkerLog, tmp_path: Path, name: str
) -> None:
    """A hard link or a symlink may be to a file of importance."""
    target = tmp_path / "important"
    target.write_text("important, and long")
    (tmp_path / "worker.log").write_text("more than ten")
    for link in (os.link, os.symlink):
        (tmp_path / name).unlink(missing_ok=True)
        link(target, tmp_path / name)
        with suppress(OSError):
            log.bound()
        assert target.read_text() == "important, and long"


def test_old_one_is_deleted(log: WorkerLog, tmp_path: Path) -> None:
    """As the logs of jobs are, when it was last written to long ago."""
    log.remove_old(utc_now())
    (tmp_path / "worker.log.1").write_text("old")
    log.remove_old(utc_now() - timedelta(hours=1))
    assert held(tmp_path) == {"worker.log.1": "old"}
    log.remove_old(utc_now() + timedelta(hours=1))
    assert held(tmp_path) == {}
