"""What ``queuectl logs`` prints."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import NOON, attempt, make_job

from queuectl.cli.replay import Replay
from queuectl.document import encode_job
from queuectl.job import Job, State
from queuectl.store.lookup import Lookup


def test_logs_prints_the_last_attempt(run: Run, place: Placing) -> None:
    """What was written comes out byte for byte, by a prefix of the id too."""
    place.dead("bad-1", runs=2)
    place.log("bad-1", 1, b"first\n")
    place.log("bad-1", 2, b"second\r\x1b[31m\nno newline")
    assert run("logs", "bad-1") == (0, "second\r\x1b[31m\nno newline", "")
    assert run("logs", "ba", "--attempt", "1") == (0, "first\n", "")


def test_logs_of_a_running_attempt_comes_before_its_end(run: Run, place: Placing) -> None:
    """The attempt that runs is not in the document yet, but its output is there."""
    place.job(State.PROCESSING, "busy", history=(attempt("busy"),))
    place.log("busy", 1, b"old\n")
    assert run("logs", "busy") == (0, "old\n", "")
    place.log("busy", 2, b"new\n")
    assert run("logs", "busy") == (0, "new\n", "")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, ""),
        (1, "d"),
        (2, "\nd"),
        (3, "c\n\nd"),
        (4, "b" * 70_000 + "\nc\n\nd"),
        (5, "a\n" + "b" * 70_000 + "\nc\n\nd"),
        (6, "a\n" + "b" * 70_000 + "\nc\n\nd"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_tail_prints_the_last_lines(
    run: Run, place: Placing, lines: int, expected: str, end: str
) -> None:
    """A last line counts whether it has ended or not; lines may be longer than a block."""
    place.dead("job-1", runs=1)
    place.log("job-1", 1, b"a\n" + b"b" * 70_000 + b"\nc\n\nd" + end.encode())
    assert run("logs", "job-1", "--tail", str(lines)) == (0, expected + end if lines else "", "")


def test_an_empty_log_is_no_error(run: Run, place: Placing) -> None:
    """A job that wrote nothing has a log all the same."""
    place.dead("quiet", runs=1)
    place.log("quiet", 1, b"")
    assert run("logs", "quiet") == (0, "", "")
    assert run("logs", "quiet", "--tail", "3") == (0, "", "")


def test_no_log_yet_ends_with_66(run: Run, place: Placing) -> None:
    """The message says why there is none, and what waits for it."""
    place.job(State.PENDING, "waits")
    place.dead("bad-1", runs=2)
    place.job(State.CANCELLED, "never")
    waits = "Error: job waits is pending and has no log of attempt 1; --follow waits for it\n"
    assert run("logs", "waits") == (66, "", waits)
    assert run("logs", "bad-1") == (66, "", "Error: the log of attempt 2 of job bad-1 is gone\n")
    third = "Error: job bad-1 is dead and has no log of attempt 3\n"
    assert run("logs", "bad-1", "--attempt", "3") == (66, "", third)
    never = "Error: job never is cancelled and has no log of attempt 1\n"
    assert run("logs", "never", "--follow") == (66, "", never)


def test_an_unknown_id_ends_with_66(run: Run) -> None:
    """No store is made to find that out."""
    assert run("logs", "nope") == (66, "", "Error: no such job: nope\n")
    assert not run.store_dir.exists()


# --- following: the world moves on each time that the command sleeps ----------------------------


@pytest.fixture
def steps(place: Placing, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], object]]]:
    """Return the list of what happens, one step for each sleep; all of it has to happen."""
    todo: list[Callable[[], object]] = []
    place.worker("w-abcd", NOON)  # that none runs would be said
    monkeypatch.setattr("queuectl.cli.logs.sleep", lambda _: todo.pop(0)())
    # Finding the job costs no time, so that it is looked at in each round.
    monkeypatch.setattr("queuectl.cli.logs.monotonic", lambda: 0.0)
    yield todo
    assert todo == []


def settle(place: Placing, job: Job, number: int, state: State) -> Path:
    """Move a running job on, with one more attempt in its history, as its worker would."""
    running = place.store_dir / "processing" / f"{job.id}.{number}.json"
    history = tuple(attempt(job.id, each) for each in range(1, number + 1))
    running.write_bytes(encode_job(job._replace(history=history, state=state)))
    name = f"5-20260102T120000.000000Z-{job.id}" if state is State.PENDING else job.id
    return running.rename(place.store_dir / state / f"{name}.json")


def claim(place: Placing, job_id: str, number: int) -> None:
    """Move a pending job to processing, as a claim does."""
    (pending,) = (place.store_dir / "pending").glob(f"*-{job_id}.json")
    pending.rename(place.store_dir / "processing" / f"{job_id}.{number}.json")


def test_follow_waits_goes_on_with_the_next_attempt_and_ends_with_the_job(
    run: Run, place: Placing, steps: list[Callable[[], object]]
) -> None:
    """From a job that waits to the one that is finished, nothing is lost or printed twice."""
    job = make_job("job-1")
    place.job(State.PENDING, "job-1")
    steps += [
        lambda: claim(place, "job-1", 1),
        lambda: place.log("job-1", 1, b"one, "),
        lambda: place.log("job-1", 1, b"two\n"),
        lambda: (place.log("job-1", 1, b"three\n"), settle(place, job, 1, State.PENDING)),
        lambda: claim(place, "job-1", 2),
        lambda: (place.log("job-1", 2, b"again\n"), settle(place, job, 2, State.COMPLETED)),
    ]
    assert run("logs", "job-1", "--follow") == (0, "one, two\nthree\nagain\n", "")


def test_follow_prints_attempts_that_came_and_went_between_two_looks(
    run: Run, place: Placing, steps: list[Callable[[], object]]
) -> None:
    """A quick attempt, even one whose log is gone, does not end it or hide the one after."""
    place.job(State.PROCESSING, "job-1")
    place.log("job-1", 1, b"1\n")

    def finish() -> None:
        place.log("job-1", 3, b"3\n")
        (place.store_dir / "processing" / "job-1.1.json").unlink()
        place.dead("job-1", runs=3)

    steps += [finish]
    assert run("logs", "job-1", "-f") == (0, "1\n3\n", "")


def test_follow_of_one_attempt_ends_with_that_attempt(
    run: Run, place: Placing, steps: list[Callable[[], object]]
) -> None:
    """--attempt with --follow does not go on with the next."""
    place.job(State.PROCESSING, "job-1")
    steps += [
        lambda: (
            place.log("job-1", 1, b"1\n"),
            settle(place, make_job("job-1"), 1, State.PENDING),
        )
    ]
    assert run("logs", "job-1", "--follow", "--attempt", "1") == (0, "1\n", "")


def test_follow_of_an_attempt_that_never_comes_ends_with_66(
    run: Run, place: Placing, steps: list[Callable[[], object]]
) -> None:
    """A job that is finished has no more attempts."""
    place.job(State.PROCESSING, "job-1")
    steps += [lambda: settle(place, make_job("job-1"), 1, State.COMPLETED)]
    assert run("logs", "job-1", "--follow", "--attempt", "2") == (
        66,
        "",
        "Error: job job-1 is completed and has no log of attempt 2\n",
    )


def test_follow_with_tail_starts_at_the_last_lines_of_the_first_log_only(
    run: Run, place: Placing, steps: list[Callable[[], object]]
) -> None:
    """What comes after is printed whole."""
    job = make_job("job-1")
    place.job(State.PROCESSING, "job-1")
    place.log("job-1", 1, b"a\nb\n")
    steps += [
        lambda: (place.log("job-1", 1, b"c\nd\n"), settle(place, job, 1, State.PENDING)),
        lambda: claim(place, "job-1", 2),
        lambda: (place.log("job-1", 2, b"e\nf\n"), settle(place, job, 2, State.COMPLETED)),
    ]
    assert run("logs", "job-1", "-f", "--tail", "1") == (0, "b\nc\nd\ne\nf\n", "")


def test_follow_starts_again_where_a_log_was_emptied(
    run: Run, place: Placing, steps: list[Callable[[], object]]
) -> None:
    """As tail -F does: a hand may have freed a full disk."""
    place.job(State.PROCESSING, "job-1")
    log = place.log("job-1", 1, b"long line\n")
    steps += [
        lambda: log.write_bytes(b"short\n"),
        lambda: settle(place, make_job("job-1"), 1, State.DEAD),
    ]
    assert run("logs", "job-1", "-f") == (0, "long line\nshort\n", "")


def test_follow_ends_where_the_job_is_purged(
    run: Run, place: Placing, steps: list[Callable[[], object]]
) -> None:
    """There is nothing more to come."""
    path = place.job(State.PENDING, "job-1", history=(attempt("job-1"),))
    place.log("job-1", 1, b"1\n")
    steps += [path.unlink]
    assert run("logs", "job-1", "-f") == (0, "1\n", "")


def test_follow_shows_the_end_of_a_log_whose_job_is_purged(
    run: Run,
    place: Placing,
    steps: list[Callable[[], object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was cut off on a terminal is shown as it is, since nothing more comes."""
    written: list[bytes] = []
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    replay = Replay(written.append, lambda: 80)
    monkeypatch.setattr("queuectl.cli.logs._output", lambda **_: replay)
    path = place.job(State.PROCESSING, "job-1")
    place.log("job-1", 1, b"\x1b[31mred\xe2\x82")
    steps += [path.unlink]
    assert run("logs", "job-1", "-f").exit_code == 0
    assert b"".join(written) == b"\x1b[31mred\x1b[0m\x1b[31m\\xe2\\x82\x1b[0m"


def test_follow_spends_a_tenth_of_its_time_on_finding_the_job(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a queue of a million a look takes a second: ten sleeps of a second follow each."""
    place.job(State.PROCESSING, "job-1")
    place.log("job-1", 1, b"end\n")
    now = 0.0
    looked_at: list[float] = []
    get = Lookup.get

    def slow_get(self: Lookup, job_id: str) -> Job:
        nonlocal now
        looked_at.append(now)
        if len(looked_at) == 4:
            settle(place, make_job("job-1"), 1, State.DEAD)
        now += 1
        return get(self, job_id)

    def sleep(_: float) -> None:
        nonlocal now
        now += 1

    monkeypatch.setattr(Lookup, "get", slow_get)
    monkeypatch.setattr("queuectl.cli.logs.monotonic", lambda: now)
    monkeypatch.setattr("queuectl.cli.logs.sleep", sleep)
    assert run("logs", "job-1", "-f") == (0, "end\n", "")
    assert looked_at == [0, 11, 22, 33]
