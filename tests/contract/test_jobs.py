"""What people and scripts do with a store: add, look, retry, purge, set."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.jobs import (
    LATER,
    NOON,
    claimed,
    drain,
    ended,
    fail_for_good,
    make_job,
    make_jobs,
    settle,
)
from tests.stores import Place

from queuectl.clock import later, utc_now
from queuectl.errors import (
    AmbiguousPrefix,
    ConfigError,
    DuplicateId,
    JobNotFound,
    WrongState,
)
from queuectl.job import Outcome, State
from queuectl.query import find_job, read_row
from queuectl.store.protocol import Store
from queuectl.store.values import Entry
from queuectl.store.worker_protocol import Claim


def test_added_job_is_the_same_when_another_process_reads_it(place: Place) -> None:
    """A job comes back from the store exactly as it was added."""
    job = make_job(
        "a",
        command="printf '%s\\n' \udcff ü",
        priority=2,
        timeout_seconds=1.5,
        env={"A": "1"},
        extra={"note": [1, None]},
    )
    assert place.open().add([job]) == ["a"]
    assert place.open().get("a") == job


def test_ids_come_back_in_their_order_and_progress_is_told(store: Store) -> None:
    """Add returns the ids in their order, and tells its progress to the last job."""
    ids = [f"j{n:02}" for n in range(40)]
    told: list[int] = []
    assert store.add(make_jobs(*ids), progress=told.append) == ids
    assert sum(told) == 40


@pytest.mark.parametrize("state", [s for s in State if s is not State.BLOCKED])
def test_chosen_id_is_refused_in_every_state(place: Place, state: State) -> None:
    """An id that a person chose may not exist, wherever the job with it is."""
    store = place.open()
    store.add([make_job("a")], chosen=["a"])
    if state is not State.PENDING:
        claim = claimed(store)
        outcomes = {
            State.COMPLETED: Outcome.SUCCEEDED,
            State.DEAD: Outcome.FAILED,
            State.CANCELLED: Outcome.CANCELLED,
        }
        if state in outcomes:
            claim, job = ended(replace_limit(claim), outcomes[state])
            assert job.state is state
            settle(store, [(claim, job)])
    assert store.get("a").state is state
    with pytest.raises(DuplicateId, match=f"'a'.*{state}"):
        place.open().add(make_jobs("new", "a"), chosen=["new", "a"])
    with pytest.raises(JobNotFound):
        store.get("new")
    assert place.open().add(make_jobs("new", "a"), chosen=["new", "a"], skip_existing=True) == [
        "new",
        "a",
    ]
    assert store.get("new").state is State.PENDING
    assert store.get("a").state is state


def replace_limit(claim: Claim) -> Claim:
    """Return the claim of a job that may run only once."""
    claim.job = claim.job._replace(max_retries=1)
    return claim


def test_exact_id_wins_over_the_prefix_of_others(store: Store) -> None:
    """A prefix stands for the one id that starts with it, an exact id for itself."""
    store.add(make_jobs("back", "backup-1", "other"))
    assert store.resolve("back").id == "back"
    assert store.resolve("backup").id == "backup-1"
    assert store.resolve("o").id == "other"
    with pytest.raises(AmbiguousPrefix, match=r"back.*backup-1"):
        store.resolve("ba")
    for unknown in ("nope", ""):
        with pytest.raises(JobNotFound):
            store.resolve(unknown)


def test_job_that_moves_while_its_prefix_is_looked_for_is_found_where_it_went(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was met is not where it is read."""
    store.add(make_jobs("backup", "other"))
    worker = place.open()
    resolve = store.resolve

    def moves(prefix: str) -> Entry:
        entry = resolve(prefix)
        drain(worker)
        return entry

    monkeypatch.setattr(store, "resolve", moves)
    found = find_job(store, "back")
    assert (found.id, found.state) == ("backup", State.COMPLETED)


def test_entries_of_pending_come_in_the_order_of_running(store: Store) -> None:
    """Due jobs come by priority, due time and id, the others after them by due time."""
    for job_id, priority, seconds in [
        ("late-urgent", 0, 60.0),
        ("due-low", 9, -10.0),
        ("due-b", 5, 0.0),
        ("due-a", 5, 0.0),
        ("soon", 9, 1.0),
        ("due-high", 1, -1.0),
    ]:
        store.add([make_job(job_id, priority=priority, run_at=later(NOON, seconds))])
    order = ["due-high", "due-a", "due-b", "due-low", "soon", "late-urgent"]
    entries = list(store.entries(State.PENDING, NOON))
    assert [entry.id for entry in entries] == order
    assert [entry.id for entry in store.entries(State.PENDING, NOON, 4)] == order[:4]
    assert (entries[0].priority, entries[0].run_at) == (1, later(NOON, -1.0))
    job = store.read(entries[0])
    assert job is not None
    assert job.id == "due-high"


def test_entries_of_a_running_job_tell_its_attempt_and_read_none_once_it_moved(
    store: Store,
) -> None:
    """An entry of a running job tells the attempt, and is stale once that ended."""
    store.add([make_job("a")])
    claim = claimed(store)
    (entry,) = store.entries(State.PROCESSING, NOON)
    assert (entry.id, entry.state, entry.attempt) == ("a", State.PROCESSING, 1)
    assert entry.changed_at is not None
    assert abs(datetime.now(UTC) - entry.changed_at) < timedelta(minutes=1)
    settle(store, [ended(claim)])
    assert store.read(entry) is None


def test_row_of_a_job_that_moves_before_it_is_read_tells_when(store: Store) -> None:
    """A list shows it where it has gone to, with the time that it would show there."""
    store.add(make_jobs("ends", "fails"))
    first, second = claimed(store), claimed(store)
    entries = {entry.id: entry for entry in store.entries(State.PROCESSING, LATER)}
    settle(store, [ended(first), ended(second, Outcome.FAILED)])
    before = utc_now()
    completed = read_row(store, entries["ends"], before)
    assert completed is not None
    assert completed.entry.state is State.COMPLETED
    assert completed.entry.changed_at is not None
    assert before <= completed.entry.changed_at <= utc_now()
    pending = read_row(store, entries["fails"], before)
    assert pending is not None
    assert pending.job is not None
    (listed,) = store.entries(State.PENDING, LATER)
    told = (pending.entry.state, pending.entry.run_at, pending.entry.priority)
    assert told == (State.PENDING, listed.run_at, listed.priority)


def test_counts_tell_states_and_due_times(store: Store) -> None:
    """Counts tell how many jobs are where, since when one is due and when the next will be."""
    assert sum(store.counts(NOON).by_state.values()) == 0
    assert store.counts(NOON).oldest_due is None
    store.add([make_job("a", run_at=later(NOON, -5))])
    store.add([make_job("b", priority=0, run_at=later(NOON, -3))])
    store.add([make_job("c", run_at=later(NOON, 7))])
    store.add([make_job("d", priority=9, run_at=later(NOON, 6))])
    counts = store.counts(NOON)
    assert counts.by_state[State.PENDING] == 4
    assert counts.due == 2
    assert counts.oldest_due == later(NOON, -5)
    assert counts.next_due == later(NOON, 6)
    claim = claimed(store, NOON)
    assert store.counts(NOON).by_state[State.PROCESSING] == 1
    settle(store, [ended(claim)])
    counts = store.counts(NOON)
    assert (counts.by_state[State.COMPLETED], counts.by_state[State.PROCESSING]) == (1, 0)


def test_retry_of_a_dead_job_starts_its_attempts_anew_and_keeps_its_history(store: Store) -> None:
    """A retried job has all its attempts again, and its next run is numbered on."""
    store.add([make_job("a")])
    fail_for_good(store)
    assert (store.get("a").state, store.get("a").attempts) == (State.DEAD, 3)
    job = store.retry("a", [State.DEAD], LATER)
    assert store.get("a") == job
    assert (job.state, job.attempts, len(job.history), job.run_at) == (State.PENDING, 0, 3, LATER)
    claim = claimed(store)
    assert claim.attempt == 4
    settle(store, [ended(claim)])
    assert [attempt.number for attempt in store.get("a").history] == [1, 2, 3, 4]


def test_retry_is_refused_where_the_state_does_not_allow_it(store: Store) -> None:
    """A job that is not in one of the states stays where it is, and the error says where."""
    store.add([make_job("a")])
    with pytest.raises(WrongState, match="a is pending, not dead"):
        store.retry("a", [State.DEAD], NOON)
    with pytest.raises(JobNotFound, match="nope"):
        store.retry("nope", [State.DEAD], NOON)
    claimed(store)
    with pytest.raises(WrongState, match="a is processing"):
        store.retry("a", [State.DEAD, State.COMPLETED, State.CANCELLED], NOON)


def test_purge_deletes_only_what_is_in_the_state_for_long_enough(store: Store) -> None:
    """A purge deletes a finished job, not one that is elsewhere or came there too late."""
    store.add([make_job("a")])
    assert not store.purging.purge("a", State.COMPLETED)
    drain(store)
    assert not store.purging.purge("a", State.DEAD)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    assert not store.purging.purge("a", State.COMPLETED, unchanged_since=long_ago)
    assert store.get("a").state is State.COMPLETED
    assert store.purging.purge(
        "a", State.COMPLETED, unchanged_since=datetime.now(UTC) + timedelta(hours=1)
    )
    assert not store.purging.purge("a", State.COMPLETED)
    with pytest.raises(JobNotFound):
        store.get("a")


def test_id_of_a_purged_job_can_be_chosen_again(store: Store) -> None:
    """An id is free again once its job is deleted."""
    store.add([make_job("a")], chosen=["a"])
    drain(store)
    store.purging.purge("a", State.COMPLETED)
    store.add([make_job("a")], chosen=["a"])
    assert drain(store) == ["a"]


def test_settings_are_seen_by_every_process(place: Place) -> None:
    """What one process sets, another one that was open before finds."""
    reader, writer = place.open(), place.open()
    assert reader.config.read() == {}
    assert reader.settings().max_retries == 3
    writer.config.change(lambda config: {**config, "max-retries": "7"})
    writer.config.change(lambda config: {**config, "priority": "1"})
    assert reader.config.read() == {"max-retries": "7", "priority": "1"}
    assert (reader.settings().max_retries, reader.settings().priority) == (7, 1)
    writer.config.change(lambda config: {})
    assert reader.settings().max_retries == 3


def test_bad_setting_is_told_with_its_key(place: Place) -> None:
    """A value that is not allowed is an error that names the key."""
    store = place.open()
    store.config.change(lambda config: {"max-retries": "many"})
    with pytest.raises(ConfigError, match="max-retries"):
        store.settings()


def test_change_of_settings_that_fails_changes_nothing(store: Store) -> None:
    """An error of the change leaves what was set, and the next change goes on."""
    store.config.change(lambda config: {"priority": "1"})

    def refuse(config: dict[str, object]) -> dict[str, object]:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        store.config.change(refuse)
    store.config.change(lambda config: {**config, "timeout": "9s"})
    assert store.config.read() == {"priority": "1", "timeout": "9s"}


def test_store_that_was_opened_is_made_when_it_is_needed(place: Place) -> None:
    """What is enqueued is checked first, and a bad job makes no store; nor is one opened twice."""
    store = place.open(create=False)
    assert store.settings().max_retries == 3
    store.make()
    store.make()
    store.add(make_jobs("a"))
    assert place.open().get("a").id == "a"
