"""Questions asked of jobs that move while the store is walked through."""

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Thread

import pytest
from tests.contract.conftest import Place
from tests.jobs import LATER, claimed, ended, make_job, make_jobs

from queuectl.errors import AmbiguousPrefix, DuplicateId
from queuectl.job import Outcome, State
from queuectl.store.base import Store
from queuectl.store.directory import DirectoryStore


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
    original = store._names
    threads: list[Thread] = []
    seen: Counter[str] = Counter()

    def fail() -> None:
        other.settle([ended(each, Outcome.FAILED) for each in running])
        running.clear()

    def names(state: str) -> Iterator[str]:
        seen[state] += 1
        if state == State.PENDING and 1 < seen[state] <= times:
            running.extend(other.claim_each(LATER, ["w"] * 2))
        if state == State.PROCESSING and seen[state] <= times:
            # Where somebody keeps what moves back, it waits, and is not waited for.
            threads.append(Thread(target=fail))
            threads[-1].start()
            threads[-1].join(0.5)
        return original(state)

    store._names = names  # type: ignore[method-assign,assignment]
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
    for ids in (["job-1", "job-2"], ["job-1", "job-3"], ["job-1", "job-2", "job-3"]):
        assert sorted(store.find(ids)) == ids
