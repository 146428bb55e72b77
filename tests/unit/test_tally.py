"""How attempts are counted, and kept when their worker goes."""

import json
from pathlib import Path

import pytest
from tests.cli.placing import NOON, attempt

from queuectl.job import Outcome
from queuectl.store.base import LENGTH_BOUNDS, Tally
from queuectl.store.directory import DirectoryStore
from queuectl.store.tally import Recent, counted, joined, tally_document, tally_from

SUCCEEDED = attempt("a", outcome=Outcome.SUCCEEDED, duration_seconds=0.1)


def test_a_bound_counts_what_took_just_so_long() -> None:
    """As Prometheus counts: less or equal; what is longer than all comes last."""
    tally = counted(Tally(), [SUCCEEDED, attempt("a", duration_seconds=1e6)])
    assert tally.by_length == (1, *(0,) * (len(LENGTH_BOUNDS) - 1), 1)
    assert tally.by_outcome == {Outcome.SUCCEEDED: 1, Outcome.FAILED: 1}
    assert tally.seconds == 1e6 + 0.1


def test_tallies_are_added() -> None:
    """Outcomes of either are there."""
    one, other = counted(Tally(), [SUCCEEDED]), counted(Tally(), [attempt("a")])
    both = joined(joined(one, other), other)
    assert both.by_outcome == {Outcome.SUCCEEDED: 1, Outcome.FAILED: 2}
    assert sum(both.by_length) == 3
    assert both.seconds == pytest.approx(3.1)


def test_a_tally_is_read_as_it_was_written() -> None:
    """Nothing is lost in JSON."""
    tally = counted(Tally(), [attempt("a")])
    assert tally_from(json.loads(json.dumps(tally_document(tally)))) == tally
    assert tally_from({}) == Tally()


def test_the_rate_is_that_of_the_last_minute() -> None:
    """It falls while nothing ends, and a young worker's is not that of a whole minute."""
    recent = Recent()
    for second in range(60):
        recent.add(6000.0 + second, 1)
    assert recent.rate(6059.9, 3600) == pytest.approx(1, abs=0.01)
    assert recent.rate(6059.9, 20) == pytest.approx(3)
    assert recent.rate(6085.0, 3600) == pytest.approx(30 / 55)
    assert recent.rate(6120.0, 3600) == 0
    assert recent.rate(5000.0, 3600) == 0  # the clock was set back


def worker(store_dir: Path, name: str) -> DirectoryStore:
    """Return the store of a live worker that has settled one attempt."""
    store = DirectoryStore(str(store_dir), create=True)
    store.register(name, NOON)
    store._count([SUCCEEDED])
    return store


def records(store_dir: Path) -> list[str]:
    """Return the names of the workers' records."""
    return sorted(path.name for path in (store_dir / "workers").glob("*.json"))


def total(store_dir: Path) -> int:
    """Return how many attempts the store knows of."""
    store = DirectoryStore(str(store_dir))
    try:
        return sum(store.tally().by_outcome.values())
    finally:
        store.close()


def test_what_a_worker_counted_outlives_it(tmp_path: Path) -> None:
    """Whether it leaves, or is killed and its stale record removed."""
    leaves, killed, lives = (worker(tmp_path, name) for name in ("w-1", "w-2", "w-3"))
    assert total(tmp_path) == 3
    leaves.unregister()
    leaves.close()
    assert total(tmp_path) == 3
    killed.close()
    assert total(tmp_path) == 3
    lives.tidy()
    assert records(tmp_path) == ["w-3.json"]
    assert total(tmp_path) == 3
    lives.close()


def test_a_worker_that_dies_while_it_leaves_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the totals and the end of the record leaves it in both."""
    dies = worker(tmp_path, "w-1")
    with monkeypatch.context() as patch:
        patch.setattr("queuectl.store.roster.os.unlink", _killed)
        with pytest.raises(KeyboardInterrupt):
            dies.unregister()
    assert total(tmp_path) == 1
    dies.close()
    assert total(tmp_path) == 1
    other = worker(tmp_path, "w-2")
    other.tidy()
    assert records(tmp_path) == ["w-2.json"]
    assert total(tmp_path) == 2
    other.unregister()
    other.close()
    assert total(tmp_path) == 2
    assert json.loads((tmp_path / "tally.json").read_text())["workers"] == ["w-2"]


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["", "[]", "{", '{"lengths": [1]}', '{"outcomes": {"x": 1}}'])
def test_broken_totals_count_anew(tmp_path: Path, text: str) -> None:
    """Nobody's safety depends on them, so no command fails because of them."""
    store = worker(tmp_path, "w-1")
    (tmp_path / "tally.json").write_text(text)
    assert total(tmp_path) == 1
    store.unregister()
    store.close()
    assert total(tmp_path) == 1


def test_a_record_with_long_names_and_counts_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written over in place, and so must never be longer than at first."""
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 64)
    store = DirectoryStore(str(tmp_path), create=True)
    store.register("w-12345", NOON)
    big = 10**10
    post = store._posts["w-12345"]
    post.tally = Tally(
        by_outcome=dict.fromkeys(Outcome, big), by_length=(big,) * 11, seconds=1e12 + 0.001
    )
    post._recent.counts = (100_000,) * 6
    post.count([])
    post.tell(("x" * 100, 10**8), NOON)
    size = (tmp_path / "workers" / "w-12345.json").stat().st_size
    assert [record.job for record in store.workers()] == ["x" * 100]
    store.close()
    assert size == 1024
