"""How attempts are counted, and kept when their worker goes."""

import json
import time
from pathlib import Path

import pytest
from tests.jobs import NOON, attempt

from queuectl.job import Outcome
from queuectl.store.directory import DirectoryStore
from queuectl.store.tally import (
    counted,
    in_last_minute,
    joined,
    tally_document,
    tally_from,
    without_future,
)
from queuectl.store.values import LENGTH_BOUNDS, Recent, Tally

SUCCEEDED = attempt("a", outcome=Outcome.SUCCEEDED, duration_seconds=0.1)


def test_a_bound_counts_what_took_just_so_long() -> None:
    """As Prometheus counts: less or equal; what is longer than all comes last."""
    tally = counted(Tally(), [SUCCEEDED, attempt("a", duration_seconds=1e6)], 0.0)
    assert tally.by_length == (1, *(0,) * (len(LENGTH_BOUNDS) - 1), 1)
    assert tally.by_outcome == {Outcome.SUCCEEDED: 1, Outcome.FAILED: 1}
    assert tally.seconds == 1e6 + 0.1


def test_tallies_are_added() -> None:
    """Outcomes of either are there."""
    one, other = counted(Tally(), [SUCCEEDED], 0.0), counted(Tally(), [attempt("a")], 0.0)
    both = joined(joined(one, other), other)
    assert both.by_outcome == {Outcome.SUCCEEDED: 1, Outcome.FAILED: 2}
    assert sum(both.by_length) == 3
    assert both.seconds == pytest.approx(3.1)


def test_a_tally_is_read_as_it_was_written() -> None:
    """Nothing is lost in JSON."""
    tally = counted(Tally(), [attempt("a")], 1.8e9)
    assert tally_from(json.loads(json.dumps(tally_document(tally)))) == tally
    assert tally_from({}) == Tally()


def ended_at(*seconds: float) -> Tally:
    """Return what a worker has counted whose attempts ended at these instants."""
    tally = Tally()
    for each in seconds:
        tally = counted(tally, [SUCCEEDED], each)
    return tally


def test_last_minute_is_a_minute_at_every_instant() -> None:
    """What is older counts no more, without anybody who writes."""
    recent = ended_at(*(6000.0 + second for second in range(120))).recent
    for now in (6119.9, 6120.0, 6125.0, 6129.9):
        assert in_last_minute(recent, now) == pytest.approx(60 - max(0, now - 6120), abs=1)
    assert in_last_minute(recent, 6150.0) == pytest.approx(30)
    assert in_last_minute(recent, 6180.0) == 0
    assert in_last_minute(recent, 5000.0) == 0  # the clock was set back


def test_what_ended_lately_is_added_up_over_workers() -> None:
    """Each counts at its own time."""
    both = joined(ended_at(6000.0, 6031.0), ended_at(6015.0, 6047.0))
    assert in_last_minute(both.recent, 6049.0) == 4
    assert in_last_minute(both.recent, 6090.0) == 2
    assert joined(Tally(), both) == both


def test_count_of_a_time_to_come_is_forgotten() -> None:
    """Else a clock that is set back would hide what ends until it has caught up."""
    tally = ended_at(6000.0)
    assert without_future(tally, 6000.0) == tally
    assert without_future(tally, 5000.0) == tally._replace(recent=Tally().recent)


def test_count_of_a_version_with_other_slots_is_read() -> None:
    """The newest are kept, and stand for the same time."""
    for counts in ([1, 2, 3, 4, 5, 6], [9, 9, 0, 1, 2, 3, 4, 5, 6]):
        tally = tally_from({"slot": 600, "recent": counts})
        assert tally.recent.counts == (0, 1, 2, 3, 4, 5, 6)


def worker(store_dir: Path, name: str) -> DirectoryStore:
    """Return the store of a live worker that has settled one attempt."""
    store = DirectoryStore(str(store_dir), create=True)
    store.queue.register(name, NOON)
    store.core.registry.count([SUCCEEDED])
    return store


def records(store_dir: Path) -> list[str]:
    """Return the names of the workers' records."""
    return sorted(path.name for path in (store_dir / "workers").glob("*.json"))


def total(store_dir: Path) -> int:
    """Return how many attempts the store knows of."""
    store = DirectoryStore(str(store_dir))
    try:
        return sum(store.workers.tally().by_outcome.values())
    finally:
        store.close()


def test_what_a_worker_counted_outlives_it(tmp_path: Path) -> None:
    """Whether it leaves, or is killed and its stale record removed."""
    leaves, killed, lives = (worker(tmp_path, name) for name in ("w-1", "w-2", "w-3"))
    assert total(tmp_path) == 3
    leaves.queue.unregister()
    leaves.close()
    assert total(tmp_path) == 3
    killed.close()
    assert total(tmp_path) == 3
    lives.pool.tidy()
    assert records(tmp_path) == ["w-3.json"]
    assert total(tmp_path) == 3
    lives.close()


def test_a_worker_that_dies_while_it_leaves_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the totals and the end of the record leaves it in both."""
    dies = worker(tmp_path, "w-1")
    with monkeypatch.context() as patch:
        patch.setattr("queuectl.store.registry.os.unlink", _killed)
        with pytest.raises(KeyboardInterrupt):
            dies.queue.unregister()
    assert total(tmp_path) == 1
    dies.close()
    assert total(tmp_path) == 1
    other = worker(tmp_path, "w-2")
    other.pool.tidy()
    assert records(tmp_path) == ["w-2.json"]
    assert total(tmp_path) == 2
    other.queue.unregister()
    other.close()
    assert total(tmp_path) == 2
    assert json.loads((tmp_path / "tally.json").read_text())["workers"] == ["w-2"]


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["", "[]", "{", '{"lengths": [1]}', '{"outcomes": {"X!": 1}}'])
def test_broken_totals_count_anew(tmp_path: Path, text: str) -> None:
    """Nobody's safety depends on them, so no command fails because of them."""
    store = worker(tmp_path, "w-1")
    (tmp_path / "tally.json").write_text(text)
    assert total(tmp_path) == 1
    store.queue.unregister()
    store.close()
    assert total(tmp_path) == 1


def test_outcome_of_a_newer_version_counts(tmp_path: Path) -> None:
    """It is kept beside those that are known, and keeps no worker from being seen."""
    store = worker(tmp_path, "w-1")
    (tmp_path / "tally.json").write_text('{"outcomes": {"succeeded": 2, "oom_killed": 3}}')
    record = tmp_path / "workers" / "w-1.json"
    record.write_text(record.read_text().replace("succeeded", "evicted"))
    other = worker(tmp_path, "w-2")
    assert [each.name for each in other.workers.live()] == ["w-1", "w-2"]
    assert other.workers.tally().by_outcome == {
        "succeeded": 3, "oom_killed": 3, "evicted": 1,
    }  # fmt: skip
    other.queue.unregister()
    other.close()
    assert json.loads((tmp_path / "tally.json").read_text())["outcomes"] == {
        "succeeded": 3, "oom_killed": 3,
    }  # fmt: skip
    store.close()


def lately(store_dir: Path) -> int:
    """Return how many attempts have ended in the last minute."""
    store = DirectoryStore(str(store_dir))
    try:
        return store.workers.ended_lately()
    finally:
        store.close()


def test_what_ended_lately_outlives_who_ran_it(tmp_path: Path) -> None:
    """Workers leave, are killed, and replaced; what ended stays so."""
    leaves, killed = worker(tmp_path, "w-1"), worker(tmp_path, "w-2")
    assert lately(tmp_path) == 2
    leaves.queue.unregister()
    leaves.close()
    killed.close()
    assert lately(tmp_path) == 2
    replaced = worker(tmp_path, "w-3")
    assert lately(tmp_path) == 3
    replaced.pool.tidy()
    assert records(tmp_path) == ["w-3.json"]
    assert lately(tmp_path) == 3
    supervisor = DirectoryStore(str(tmp_path))
    supervisor.core.registry.count([attempt("lost", outcome=Outcome.LOST)])
    supervisor.close()
    assert lately(tmp_path) == 4
    replaced.close()


def test_a_record_with_long_names_and_counts_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written over in place, and so must never be longer than at first."""
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 64)
    store = DirectoryStore(str(tmp_path), create=True)
    store.queue.register("w-12345", NOON)
    big = 10**10
    post = store.core.registry.local("w-12345")
    assert post is not None
    post.tally = Tally(
        by_outcome=dict.fromkeys(Outcome, big),
        by_length=(big,) * 11,
        seconds=1e12 + 0.001,
        recent=Recent(int(time.time()) // 10, (100_000,) * 7),
    )
    post.count([])
    post.note(("x" * 100, 10**8), NOON)
    size = (tmp_path / "workers" / "w-12345.json").stat().st_size
    assert [record.job for record in store.workers.live()] == ["x" * 100]
    store.close()
    assert size == 1024
