"""Questions asked of jobs that move while the store is walked through."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from tests.directory.conftest import Place
from tests.jobs import LATER, claimed, ended, make_job, make_jobs, settle

from queuectl.errors import AmbiguousPrefix, DuplicateId, JobNotFound, StoreBusy
from queuectl.job import Outcome, State
from queuectl.store import complete_walk, files
from queuectl.store.directory import DirectoryStore
from queuectl.store.protocol import Store


def _refusal(store: Store, prefix: str) -> str:
    with pytest.raises(AmbiguousPrefix) as refused:
        store.resolve(prefix)
    return str(refused.value).partition(": ")[2]


def _duplicate(store: Store) -> str:
    with pytest.raises(DuplicateId):
        store.add([make_job("job-1")], chosen=["job-1"])
    return "job-1"


QUESTIONS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("job-1").id,
    "find": lambda store: sorted(store.find(["job-1", "other-1"])),
    "resolve": lambda store: store.resolve("job-1").id,
    "a unique prefix": lambda store: store.resolve("job-").id,
    "an ambiguous prefix": lambda store: _refusal(store, "o"),
    "add after it": lambda store: store.add([make_job("child", after=("job-1",))])[0],
    "add it again": _duplicate,
}
ANSWERS = {
    "find": ["job-1", "other-1"],
    "an ambiguous prefix": "other-1, other-2",
    "add after it": "child",
}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("question", QUESTIONS)
def test_job_that_comes_back_behind_the_walk_is_found(
    store: Store, place: Place, question: str, times: int
) -> None:
    """A running job that fails after pending/ was read is not "no such job", however often."""
    store.add([make_job("job-1", max_retries=9), make_job("other-2", max_retries=9)])
    store.add([make_job("other-1", run_at=LATER)])
    other = place.open()
    running = [claimed(other), claimed(other)]
    assert isinstance(store, DirectoryStore)
    original = store.core.directory.names
    threads: list[Thread] = []
    seen: Counter[str] = Counter()

    def fail() -> None:
        settle(other, [ended(each, Outcome.FAILED) for each in running])
        running.clear()

    def names(state: str) -> Iterator[str]:
        seen[state] += 1
        if state == State.PENDING and 1 < seen[state] <= times:
            running.extend(other.queue.claim(LATER, ["w"] * 2))
        if state == State.PROCESSING and seen[state] <= times:
            # Where somebody keeps what moves back, it waits, and is not waited for.
            threads.append(Thread(target=fail))
            threads[-1].start()
            threads[-1].join(0.5)
        return original(state)

    store.core.directory.names = names  # type: ignore[method-assign,assignment]
    assert QUESTIONS[question](store) == ANSWERS.get(question, "job-1")
    for thread in threads:
        thread.join()
    other.close()


def test_two_files_of_one_id_hide_no_other_job(store: Store) -> None:
    """A file that was dropped beside a job of its name counts once."""
    assert isinstance(store, DirectoryStore)
    store.add(make_jobs("job-1", "job-2", "job-3"))
    dropped = f"{store.location}/pending/job-1.json"
    with open(dropped, "w") as file:
        file.write('{"command": "true"}')
    names = sorted(store.core.directory.names(State.PENDING), key=lambda name: "job-1" not in name)
    store.core.directory.names = lambda state: iter(names if state == State.PENDING else ())  # type: ignore[method-assign,assignment]
    for number, ids in enumerate([("job-1", "job-2"), ("job-1", "job-3")]):
        store.add([make_job(f"child-{number}", after=ids)])


@contextmanager
def held(place: Place) -> Iterator[None]:
    """Hold pending.lock as another process does that was stopped with it."""
    with (place.path / "pending.lock").open() as file:
        assert files.lock(file.fileno())
        yield


UNKNOWN: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("nope"),
    "resolve": lambda store: store.resolve("nope"),
    "cancel": lambda store: list(store.cancel(["nope"])),
}


@pytest.mark.parametrize("question", UNKNOWN)
def test_look_does_not_wait_for_ever_for_who_was_stopped_with_the_lock(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """It says that it cannot know; a job that is there is found all the same."""
    monkeypatch.setattr(complete_walk, "_PATIENCE_SECONDS", 0.05)
    store.add([make_job("job-1")])
    with held(place):
        with pytest.raises(StoreBusy, match=r"pending\.lock locked for 0\.05 s: try"):
            UNKNOWN[question](store)
        assert store.get("job-1").id == store.resolve("job-1").id == "job-1"


@pytest.mark.parametrize("question", UNKNOWN)
def test_look_needs_no_lock_where_nothing_has_moved(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """Neither pending/ nor a directory of blocked/ has changed while the walk went on."""
    monkeypatch.setattr(complete_walk, "_COARSE_NS", 0)
    store.add([make_job("job-1"), make_job("child", after=("job-1",))])
    with held(place):
        with pytest.raises(JobNotFound):
            UNKNOWN[question](store)
        assert store.resolve("job").id == "job-1"


@pytest.mark.parametrize("moved", ["into pending", "under another parent"])
def test_look_that_takes_no_lock_sees_that_a_job_has_moved(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """What has come into pending/ or blocked/ behind the walk is looked for once more."""
    monkeypatch.setattr(complete_walk, "_COARSE_NS", 0)
    store.add([make_job(each) for each in ("first", "second")])
    store.add([make_job("child", after=("first", "second"))])
    other = place.open()
    running = claimed(other)
    assert isinstance(store, DirectoryStore)
    original = store.core.directory.names
    seen: Counter[str] = Counter()

    def names(state: str) -> Iterator[str]:
        seen[state] += 1
        # blocked/ is read once to know when it has changed, before it is read by the walk.
        if moved == "into pending" and state == State.PROCESSING and seen[state] == 1:
            settle(other, [ended(running, Outcome.FAILED)])
        if moved == "under another parent" and state == State.BLOCKED and seen[state] == 2:
            directories = ["second", "first"]
            yield directories[0]
            settle(other, [ended(running)])
            yield directories[1]
            return
        yield from original(state)

    store.core.directory.names = names  # type: ignore[method-assign,assignment]
    wanted = "first" if moved == "into pending" else "child"
    assert store.find([wanted]).keys() == {wanted}


def test_look_holds_the_lock_alone_and_lets_it_go(store: Store, place: Place) -> None:
    """Many who look at the same time do not keep a job from moving back for ever."""
    store.add([make_job("job-1")])
    assert isinstance(store, DirectoryStore)
    original = store.core.lookup._walk
    are_held = []

    def walk(ids: set[str], except_pending: str) -> dict[str, tuple[State, str]]:
        with (place.path / "pending.lock").open() as file:
            are_held.append(not files.lock(file.fileno()))
        return original(ids, except_pending)

    store.core.lookup._walk = walk  # type: ignore[method-assign,assignment]
    assert store.find(["nope"]) == {}
    assert are_held == [False, True]
    with (place.path / "pending.lock").open() as file:
        assert files.lock(file.fileno())


def test_look_needs_no_right_to_write(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store on a file system that is mounted read-only answers."""
    store.add([make_job("job-1")])
    (place.path / "pending.lock").unlink()
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    assert store.find(["job-1", "nope"]).keys() == {"job-1"}


def test_job_that_moves_on_while_jobs_are_counted_is_not_missed(store: Store, place: Place) -> None:
    """It may be in two numbers, where it was and where it is, and is in one at least."""
    store.add(make_jobs("parent", "next"))
    store.add([make_job("child", after=("parent",))])
    other = place.open()
    running = [claimed(other)]
    assert isinstance(store, DirectoryStore)
    original = store.core.directory.names

    def names(state: str) -> Iterator[str]:
        # Just before a directory is read, who is in it moves on.
        if state == State.BLOCKED and running:
            settle(other, [ended(running.pop())])  # which lets the child go on
        if state == State.PENDING:
            claimed(other)
        return original(state)

    store.core.directory.names = names  # type: ignore[method-assign,assignment]
    counts = {state: count for state, count in store.counts(LATER).by_state.items() if count}
    assert counts == {State.PENDING: 1, State.PROCESSING: 1, State.COMPLETED: 1}


def test_claim_that_is_undone_moves_the_job_back_under_the_lock(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of what a hand has put there at the last moment is a move back, too (rule 7)."""
    store.add([make_job("job-1")])
    pending = place.path / "pending"
    assert isinstance(store, DirectoryStore)
    original, real = files.move_new, os.rename
    are_held = []

    def replace_and_move(first_fd: int, first: str, *others: Any) -> None:
        (pending / ".edited").write_bytes((pending / first).read_bytes())
        (pending / ".edited").replace(pending / first)
        original(first_fd, first, *others)

    def rename(*args: Any, **fds: Any) -> None:
        are_held.append(store.core.lock.is_held)
        real(*args, **fds)

    monkeypatch.setattr(files, "move_new", replace_and_move)
    monkeypatch.setattr(os, "rename", rename)
    assert store.queue.claim(LATER, ["w"]) == []
    assert are_held == [True]
    assert store.find(["job-1"])["job-1"].state is State.PENDING
