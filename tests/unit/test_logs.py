"""Which log is an attempt's, and which one was left by an older job of the same id."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from queuectl.store.logs import LogDir

HOUR = timedelta(hours=1)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[LogDir]:
    """Return a directory that holds the log of an attempt, written to now."""
    made = LogDir(str(tmp_path / "logs"))
    write(made, b"old\n")
    yield made
    assert made._dir_fd is not None
    os.close(made._dir_fd)


def write(logs: LogDir, data: bytes, created_at: datetime | None = None) -> None:
    """Write to the log of an attempt, as its command would."""
    fd = logs.open_for_append("a", 1, created_at=created_at)
    os.write(fd, data)
    os.close(fd)


def content(logs: LogDir) -> bytes:
    """Return what the log of the attempt holds."""
    return Path(logs.path("a", 1)).read_bytes()


def test_log_that_is_older_than_the_job_makes_place_for_a_new_one(logs: LogDir) -> None:
    """Who still writes into the old one does not write into the new one."""
    fd = logs.open_for_append("a", 1)
    Path(logs.path("a", 1)).touch()
    now = datetime.now(UTC)
    long_ago = (now - HOUR).timestamp()
    os.utime(logs.path("a", 1), (long_ago, long_ago))
    assert logs.open_for_reading("a", 1, created_at=now) is None
    write(logs, b"new\n", created_at=now)
    os.write(fd, b"more\n")
    os.close(fd)
    assert content(logs) == b"new\n"


@pytest.mark.parametrize("created", ["before", "at once", "by a clock set back since"])
def test_log_of_the_job_itself_is_gone_on_with(logs: LogDir, created: str) -> None:
    """An attempt that was given back has written it."""
    written_at = datetime.fromtimestamp(os.stat(logs.path("a", 1)).st_mtime, UTC)
    created_at = {
        "before": written_at - HOUR,
        "at once": written_at + timedelta(milliseconds=4),  # the time of a file lags behind
        "by a clock set back since": written_at + HOUR,
    }[created]
    write(logs, b"new\n", created_at=created_at)
    assert content(logs) == b"old\nnew\n"
    fd = logs.open_for_reading("a", 1, created_at=created_at)
    assert fd is not None
    os.close(fd)
