"""What a person or a script may do to the files of a directory store, with rm, mv and an editor."""

import json
import shutil
import time
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.directory.support import WHOLE, grow_old, name_of, names
from tests.jobs import (
    LATER,
    NOON,
    claim_next,
    claimed,
    drain,
    ended,
    make_job,
    make_jobs,
    settle,
)

from queuectl.clock import format_instant, later
from queuectl.job import Job
from queuectl.store.names import pending_name
from queuectl.store.protocol import Store
from queuectl.store.settling import Settler


@pytest.mark.parametrize("is_recorded", [False, True])
def test_running_job_that_was_taken_away_lets_the_others_be_settled(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    """Whether before its end is recorded or after: it is told, and stays where it is."""
    store.add(make_jobs("a", "b", "c"))
    claims = [claimed(store) for _ in range(3)]
    settlement = store.queue.begin_settle([ended(claim) for claim in claims])
    settlement.sync()
    running = place.path / "processing"

    def take() -> None:
        (running / "b.1.json").rename(place.path / "cancelled" / "b.json")

    if is_recorded:
        roll_forward = Settler.roll_forward

        def take_first(self: Settler, name: str, job: Job) -> None:
            if name == "b.1.json":
                take()
            roll_forward(self, name, job)

        monkeypatch.setattr(Settler, "roll_forward", take_first)
    else:
        take()
    settlement.finish()
    assert [claim.job.id for claim in settlement.gone] == ["b"]
    assert list(running.iterdir()) == []
    assert sorted(path.name for path in (place.path / "completed").iterdir()) == [
        "a.json", "c.json",
    ]  # fmt: skip
    assert [path.name for path in (place.path / "cancelled").iterdir()] == ["b.json"]
    assert sum(store.workers.tally().by_outcome.values()) == 2


def test_claims_are_free_when_the_whole_store_was_deleted(place: Place, store: Store) -> None:
    """There is nothing left to settle, and no worker is kept by it."""
    store.add(make_jobs("a", "b"))
    claims = [claimed(store), claimed(store)]
    shutil.rmtree(place.path)
    settlement = store.queue.begin_settle([ended(claim) for claim in claims])
    settlement.sync()
    settlement.finish()
    assert [claim.job.id for claim in settlement.gone] == ["a", "b"]
    assert not place.path.exists()


def test_running_job_that_was_taken_away_cannot_be_given_back(place: Place, store: Store) -> None:
    """It stays where it is, and the worker is free of it."""
    store.add(make_jobs("a"))
    claim = claimed(store)
    (place.path / "processing" / "a.1.json").rename(place.path / "dead" / "a.json")
    store.queue.give_back(claim)
    assert list((place.path / "pending").iterdir()) == []


def test_removed_file_is_a_job_that_is_gone(store: Store, pending: Path) -> None:
    """`rm` on a waiting job means that it does not run, also once a worker knows its name."""
    store.add(make_jobs("a", "b", "c"))
    assert claimed(store).job.id == "a"
    (pending / pending_name(5, later(NOON, 0.000001), "b")).unlink()
    assert drain(store) == ["c"]


def test_renamed_file_has_the_priority_and_due_time_of_its_name(
    store: Store, pending: Path
) -> None:
    """`mv` within pending/ changes priority and due time: the name decides."""
    store.add(make_jobs("a", "b", "c"))
    assert claimed(store).job.id == "a"
    old = pending / pending_name(5, later(NOON, 0.000002), "c")
    old.rename(pending / pending_name(1, later(NOON, 30), "c"))
    claim = claimed(store)
    assert (claim.job.id, claim.job.priority, claim.job.run_at) == ("c", 1, later(NOON, 30))
    assert drain(store) == ["b"]


@pytest.mark.parametrize("editor", ["in place", "by rename"])
def test_edited_document_is_what_runs(store: Store, pending: Path, editor: str) -> None:
    """An editor on a waiting document changes what runs, whether it writes in place or renames."""
    store.add(make_jobs("a", "b"))
    assert claimed(store).job.id == "a"
    path = pending / pending_name(5, later(NOON, 0.000001), "b")
    text = path.read_text().replace("run b", "edited").replace('"priority": 5', '"priority": 0')
    if editor == "in place":
        path.write_text(text)
    else:
        (pending / ".b.swp").write_text(text)
        (pending / ".b.swp").rename(path)
    claim = claimed(store)
    assert (claim.job.id, claim.job.command, claim.job.priority) == ("b", "edited", 5)


def test_unknown_keys_are_kept_when_the_store_rewrites(store: Store, pending: Path) -> None:
    """What an editor or another program added to a document survives its run."""
    document = '{"id": "a", "command": "x", "note": {"b": [1.5, "ü"]}, "max_retries": 3}'
    (pending / name_of("a")).write_text(document, encoding="utf-8")
    settle(store, [ended(claimed(store))])
    assert store.get("a").extra == {"note": {"b": [1.5, "ü"]}}


def test_foreign_document_under_a_full_name_gets_the_rest_from_the_config(
    store: Store, pending: Path
) -> None:
    """A script may give the full name and only a command."""
    store.config.change(lambda _: {"max-retries": "9"})
    (pending / pending_name(1, NOON, "a")).write_text(WHOLE)
    job = claimed(store).job
    assert (job.id, job.priority, job.max_retries, job.run_at) == ("a", 1, 9, NOON)


def test_name_decides_about_the_id(store: Store, pending: Path) -> None:
    """A copy of a waiting document under another id is another job."""
    store.add([make_job("a")])
    (pending / name_of("b")).write_bytes((pending / name_of("a")).read_bytes())
    assert drain(store) == ["a", "b"]
    assert [store.get(job_id).id for job_id in ("a", "b")] == ["a", "b"]


# --- ls and cat ---


def test_order_of_ls_is_the_order_of_running(place: Place, store: Store, pending: Path) -> None:
    """Sorted names are the order in which one worker claims what is due."""
    jobs = [
        make_job(f"j{(index * 37) % 100:02}", priority=(index * 7) % 10, run_at=later(NOON, -index))
        for index in range(80)
    ]
    place.open().add(jobs[:50])
    place.open().add(jobs[50:])
    listed = [name[26:-5] for name in names(pending)]
    assert drain(store, NOON) == listed


def test_mtimes_tell_when_a_job_started_and_ended(place: Place, store: Store) -> None:
    """`ls -l` shows when a running job was started and when another ended."""
    store.add([make_job("a")])
    grow_old(place.path / "pending" / name_of("a"), 3600)
    before = time.time() - 1
    claim = claimed(store)
    assert (place.path / "processing" / "a.1.json").stat().st_mtime > before
    grow_old(place.path / "processing" / "a.1.json", 3600)
    settle(store, [ended(claim)])
    assert (place.path / "completed" / "a.json").stat().st_mtime > before


def test_document_can_be_read_with_cat(place: Place, store: Store) -> None:
    """A document is one key a line, in the order that is promised."""
    store.add([make_job("a")])
    text = (place.path / "pending" / name_of("a")).read_text()
    assert list(json.loads(text)) == [
        "schema", "id", "command", "state", "priority", "attempts", "max_retries", "timeout",
        "cwd", "env", "after", "after_any", "created_at", "updated_at", "run_at", "history",
    ]  # fmt: skip
    assert f'  "run_at": "{format_instant(NOON)}",\n' in text


def test_second_document_of_a_running_job_waits_until_it_ended(
    place: Place, store: Store, pending: Path
) -> None:
    """A copy of a running job, put beside it by a hand, does not replace it."""
    store.add([make_job("a")])
    copy = (pending / name_of("a")).read_bytes()
    claim = claimed(store)
    (pending / name_of("a")).write_bytes(copy)
    assert claim_next(store, LATER) is None
    assert names(place.path / "processing") == ["a.1.json"]
    settle(store, [ended(claim)])
    due = store.queue.next_due()
    assert due is not None
    assert LATER < due <= later(LATER, 1.0)
