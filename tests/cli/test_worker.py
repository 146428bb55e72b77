"""What the ``queuectl worker`` commands print, and what they ask of the pool."""

import json
import sys
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing

from queuectl.clock import format_instant, utc_now
from queuectl.errors import TimeoutExpired


class Pool(ModuleType):
    """Stand in for the pool: note what is asked, and answer what a test wants."""

    def __init__(self) -> None:
        super().__init__("queuectl.worker")
        self.asked: list[tuple[Any, ...]] = []
        self.exit_code = 0
        self.stopped: list[str] = []
        self.failure: Exception | None = None

    def run_pool(
        self,
        store_location: str,
        count: int,
        *,
        drain: bool,
        unless_running: bool,
        detach: bool,
        quiet: bool,
    ) -> int:
        """Start nothing."""
        self.asked.append((store_location, count, drain, unless_running, detach, quiet))
        return self.exit_code

    def stop_all(
        self, store: Any, *, now: bool, timeout_seconds: float | None, on_slow: object
    ) -> list[str]:
        """Stop nothing."""
        self.asked.append((store.location, now, timeout_seconds))
        if self.failure is not None:
            raise self.failure
        return self.stopped


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Return what stands in for the pool."""
    stand_in = Pool()
    monkeypatch.setitem(sys.modules, "queuectl.worker", stand_in)
    return stand_in


def test_start_runs_one_worker_in_the_foreground(run: Run, pool: Pool) -> None:
    """Nothing is drained, detached or quiet unless it is asked for."""
    assert run("worker", "start") == (0, "", "")
    assert pool.asked == [(str(run.store_dir), 1, False, False, False, False)]


def test_start_hands_on_its_options_and_the_pools_exit_code(run: Run, pool: Pool) -> None:
    """The pool decides how it ended."""
    pool.exit_code = 74
    result = run(
        "worker", "start", "--count", "4", "--drain", "--unless-running", "--detach", "--quiet"
    )
    assert result == (74, "", "")
    assert pool.asked == [(str(run.store_dir), 4, True, True, True, True)]


@pytest.mark.parametrize("count", ["0", "-1", "1001", "two"])
def test_start_refuses_a_count_that_makes_no_sense(run: Run, pool: Pool, count: str) -> None:
    """Each worker is a process: there is at least one, and no typing error makes a million."""
    code, stdout, stderr = run("worker", "start", "--count", count)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("Error: Invalid value for '--count': ")
    assert pool.asked == []


def test_stop_waits_and_says_who_has_stopped(run: Run, pool: Pool) -> None:
    """Without options it lets the jobs finish, however long that takes."""
    pool.stopped = ["w-1", "w-2"]
    assert run("worker", "stop") == (0, "", "stopped 2 workers: w-1, w-2\n")
    assert pool.asked == [(str(run.store_dir), False, None)]


def test_stop_now_with_a_timeout_hands_both_on(run: Run, pool: Pool) -> None:
    """Durations are seconds to the pool."""
    pool.stopped = ["w-1"]
    result = run("worker", "stop", "--now", "--timeout", "1m30s")
    assert result == (0, "", "stopped 1 worker: w-1\n")
    assert pool.asked == [(str(run.store_dir), True, 90.0)]


def test_stop_without_workers_is_no_error(run: Run) -> None:
    """What is asked for is so already; a queue that does not exist yet has no workers either."""
    assert run("worker", "stop") == (0, "", "no workers are running\n")
    assert run("worker", "stop", "--now") == (0, "", "no workers are running\n")


def test_stop_that_takes_too_long_ends_with_75(run: Run, pool: Pool) -> None:
    """The pool's message says who still runs."""
    pool.failure = TimeoutExpired("w-1 still runs job-1")
    assert run("worker", "stop", "--timeout", "1s") == (75, "", "Error: w-1 still runs job-1\n")


def test_list_shows_the_live_workers_by_name(run: Run, place: Placing) -> None:
    """A busy one with its job and attempt, an idle one without, a dead one not at all."""
    now = utc_now()
    place.worker("w-2", now - timedelta(seconds=65), job="job-1", attempt=2)
    place.worker("w-1", now - timedelta(hours=2), pid=12)
    (place.store_dir / "workers" / "w-0.json").write_text(
        (place.store_dir / "workers" / "w-1.json").read_text()
    )
    assert run("worker", "list") == (
        0,
        (
            "NAME  PID   HOST  JOB    ATTEMPT  SINCE\n"
            "w-1   12    box                   2h ago\n"
            "w-2   4711  box   job-1  2        1m5s ago\n"
        ),
        "",
    )


def test_list_as_json_has_every_key(run: Run, place: Placing) -> None:
    """An idle worker's job and attempt are null."""
    since = utc_now()
    place.worker("w-1", since)
    code, stdout, stderr = run("worker", "list", "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout) == [
        {
            "name": "w-1",
            "pid": 4711,
            "host": "box",
            "job": None,
            "attempt": None,
            "since": format_instant(since),
        }
    ]


def test_list_of_an_absent_store_is_empty_and_makes_nothing(run: Run) -> None:
    """No store, no workers."""
    assert run("worker", "list") == (0, "", "no workers are running\n")
    assert run("worker", "list", "--json") == (0, "[]\n", "")
    assert not run.store_dir.exists()
