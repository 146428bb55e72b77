"""When a worker process that failed is replaced, and when a pool gives up."""

import pytest

from queuectl.worker.restart import EXIT_TEMPORARY, RestartPolicy

BUG, KILLED = 70, -9
EARLY, LATE = 4.9, 5.0


def policy(*, drain: bool = False, is_awaited: bool = False) -> RestartPolicy:
    """Return the policy of a pool in the foreground that stays."""
    return RestartPolicy(drain=drain, is_awaited=is_awaited)


def test_one_process_is_started_in_a_second() -> None:
    """However many have failed."""
    restarts = policy()
    assert restarts.pause_seconds(100.0) == 0.0
    restarts.note_start(100.0)
    assert restarts.pause_seconds(100.25) == 0.75
    assert restarts.pause_seconds(101.0) == 0.0


def test_ten_early_failures_in_a_row_are_the_end() -> None:
    """The pool ends with the exit code of the last one."""
    restarts = policy()
    for _ in range(9):
        restarts.note_failure(1, EARLY)
    assert restarts.exit_code is None
    restarts.note_failure(BUG, EARLY)
    assert restarts.exit_code == BUG


@pytest.mark.parametrize(("code", "seconds"), [(BUG, LATE), (KILLED, EARLY)])
def test_one_that_has_worked_for_a_while_or_was_killed_proves_that_others_can(
    code: int, seconds: float
) -> None:
    """Then the count begins again."""
    restarts = policy()
    for _ in range(9):
        restarts.note_failure(BUG, EARLY)
    restarts.note_failure(code, seconds)
    restarts.note_failure(BUG, EARLY)
    assert restarts.exit_code is None


def test_a_shortage_is_waited_for() -> None:
    """A full disk gets room again some day."""
    restarts = policy()
    assert restarts.is_patient
    for _ in range(100):
        restarts.note_failure(EXIT_TEMPORARY, 0.1)
    assert restarts.exit_code is None
    assert restarts.lacks_resources
    restarts.note_failure(BUG, EARLY)
    assert not restarts.lacks_resources


@pytest.mark.parametrize(("drain", "is_awaited"), [(True, False), (False, True)])
def test_a_shortage_ends_a_pool_that_somebody_waits_for(*, drain: bool, is_awaited: bool) -> None:
    """Cron tries again, and so can the person who sees the message."""
    restarts = policy(drain=drain, is_awaited=is_awaited)
    assert not restarts.is_patient
    restarts.note_failure(EXIT_TEMPORARY, 0.1)
    assert restarts.exit_code == 74


def test_a_pool_in_the_background_is_patient_once_it_has_worked() -> None:
    """Nobody waits for it any more, unless it drains."""
    for drain in (False, True):
        restarts = policy(drain=drain, is_awaited=True)
        restarts.note_failure(KILLED, EARLY)
        restarts.note_failure(EXIT_TEMPORARY, 0.1)
        assert restarts.exit_code == (74 if drain else None)
