"""Commands that wait say once what they wait for, where that never comes or not for long."""

from datetime import timedelta

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import NOON, make_job

from queuectl.clock import format_instant, utc_now
from queuectl.document import encode_job
from queuectl.job import State
from queuectl.store import complete_walk, open_store, waiting
from queuectl.store.directory import DirectoryStore
from queuectl.store.lookup import Lookup
from queuectl.store.records import WorkerRecords

SHORTLY = ("--timeout", "0.01s")
NO_WORKER = "waiting, but no worker is running: see 'queuectl worker start'"


@pytest.fixture
def worker(place: Placing) -> None:
    """Let a worker run, so that there is nothing to say of that."""
    place.worker("w-abcd", NOON)


def block(place: Placing, job_id: str, *parents: str, any_end: bool = False) -> None:
    """Put a job under the first of its parents, as an enqueue does."""
    directory = place.store_dir / "blocked" / parents[0]
    directory.mkdir(mode=0o700, exist_ok=True)
    waits_for = {"after_any" if any_end else "after": parents}
    job = make_job(job_id, state=State.BLOCKED, **waits_for)
    (directory / f"{job_id}.json").write_bytes(encode_job(job))


def said(run: Run, *words: str) -> list[str]:
    """Return what is said on stderr before the time is out."""
    code, stdout, stderr = run(*words)
    assert (code, stdout) == (75, "")
    *lines, last = stderr.splitlines()
    assert last.startswith("Error: not ended yet: ")
    return lines


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("state", "helps"),
    [
        (State.DEAD, "'queuectl dlq retry p' or 'queuectl cancel c'"),
        (State.CANCELLED, "'queuectl retry p' or 'queuectl cancel c'"),
        (None, "'queuectl cancel c'"),
    ],
)
def test_a_parent_that_lets_nobody_go_on(
    run: Run, place: Placing, state: State | None, helps: str
) -> None:
    """A job that waits for one that is dead, cancelled or gone does not run before that does."""
    if state is not None:
        place.job(state, "p")
    block(place, "c", "p")
    line = f"job c is blocked by p, which is {state or 'gone'}: {helps}"
    assert said(run, "wait", "c", *SHORTLY) == [line]
    assert said(run, "wait", "c", *SHORTLY, "--quiet") == []


@pytest.mark.usefixtures("worker")
def test_a_parent_of_a_parent_and_one_that_it_is_not_placed_under(run: Run, place: Placing) -> None:
    """The reason may lie further on."""
    place.job(State.PROCESSING, "runs")
    place.dead("a")
    block(place, "b", "runs", "a")
    block(place, "c", "b")
    assert said(run, "wait", "c", *SHORTLY) == [
        (
            "job c is blocked by b, which is blocked by a, which is dead:"
            " 'queuectl dlq retry a' or 'queuectl cancel c'"
        )
    ]


@pytest.mark.usefixtures("worker")
def test_what_ends_by_itself_is_worth_no_word(run: Run, place: Placing) -> None:
    """A parent that runs or waits, one that may end in any way, a time that comes soon."""
    place.job(State.PROCESSING, "runs")
    place.job(State.PENDING, "soon", run_at=utc_now() + timedelta(seconds=50))
    place.dead("dead")
    block(place, "c", "runs", "soon")
    block(place, "any", "dead", any_end=True)
    block(place, "round", "round-2")
    block(place, "round-2", "round")
    assert said(run, "wait", "c", "any", "soon", "runs", "round", *SHORTLY) == []


@pytest.mark.usefixtures("worker")
def test_a_job_that_is_due_far_ahead(run: Run, place: Placing) -> None:
    """It says when, of what waits for it, too."""
    run_at = utc_now() + timedelta(days=365, seconds=30)
    place.job(State.PENDING, "later", run_at=run_at)
    block(place, "c", "later")
    due = f"due at {format_instant(run_at)[:19]}Z (in 365d)"
    assert said(run, "wait", "later", "c", *SHORTLY) == [
        f"job later is {due}",
        f"job c is blocked by later, which is {due}",
    ]


@pytest.mark.usefixtures("worker")
def test_what_begins_while_it_is_waited_for_is_said_once(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that dies meanwhile; looking again says nothing new."""
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    place.job(State.PROCESSING, "p")
    block(place, "c", "p")
    find, looks = Lookup.find, []

    def find_and_die(self: Lookup, job_ids: object) -> object:
        looks.append(job_ids)
        if len(looks) == 4:
            (place.store_dir / "processing" / "p.1.json").rename(
                place.store_dir / "dead" / "p.json"
            )
        if len(looks) == 8:
            place.job(State.COMPLETED, "c")
            (place.store_dir / "blocked" / "p" / "c.json").unlink()
        return find(self, job_ids)  # type: ignore[arg-type]

    monkeypatch.setattr(Lookup, "find", find_and_die)
    code, _, stderr = run("wait", "c", "--timeout", "60s")
    assert (code, stderr) == (
        0,
        "job c is blocked by p, which is dead: 'queuectl dlq retry p' or 'queuectl cancel c'\n",
    )
    assert len(looks) >= 8


@pytest.mark.parametrize(
    ("live", "lines"), [((1, 0, 1, 0), []), ((1, 0, 1, 0, 0), [NO_WORKER]), ((0,), [NO_WORKER])]
)
def test_a_worker_that_is_replaced_is_not_missed(
    run: Run,
    place: Placing,
    monkeypatch: pytest.MonkeyPatch,
    live: tuple[int, ...],
    lines: list[str],
) -> None:
    """That none runs is said at once, and later when it was so twice in a row."""
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.001)
    place.job(State.PENDING, "c")
    looks = [*live]

    def live_workers(_: WorkerRecords) -> list[int]:
        return [1] * looks.pop(0) if looks else [1]

    monkeypatch.setattr(WorkerRecords, "live", live_workers)
    assert said(run, "wait", "c", "--timeout", "0.5s") == lines
    assert looks == []


@pytest.mark.usefixtures("worker")
def test_many_lines_are_cut_short(run: Run, place: Placing) -> None:
    """Thousands may wait for one that is dead."""
    place.dead("p")
    ids = [f"c-{number:02}" for number in range(12)]
    for job_id in ids:
        block(place, job_id, "p")
    lines = said(run, "wait", *ids, *SHORTLY)
    assert len(lines) == 11
    assert lines[-1] == "and 2 more: see 'queuectl list'"


@pytest.mark.usefixtures("worker")
def test_a_log_that_is_followed_in_vain(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps its job is said on stderr, and its output alone on stdout."""
    place.dead("p")
    block(place, "c", "p")

    def end(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("queuectl.cli.logs.sleep", end)
    code, stdout, stderr = run("logs", "c", "--follow")
    assert (code, stdout) == (130, "")
    assert stderr.startswith(
        "job c is blocked by p, which is dead: 'queuectl dlq retry p' or 'queuectl cancel c'\n"
    )


@pytest.mark.usefixtures("worker")
def test_a_store_that_others_keep_locked_is_looked_at_later(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be known now is no reason to end a wait, and no job is called gone for it."""
    monkeypatch.setattr(complete_walk, "_PATIENCE_SECONDS", 0.02)
    block(place, "c", "nobody")
    store = open_store(str(place.store_dir))
    assert isinstance(store, DirectoryStore)
    with store.core.lock.held():
        assert said(run, "wait", "c", *SHORTLY) == []
    store.close()
