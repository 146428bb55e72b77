"""Which jobs a list shows, and in which order, while they move from state to state."""

from datetime import timedelta
from typing import cast

import pytest
from tests.jobs import NOON, make_job

from queuectl.job import FINISHED, Job, State
from queuectl.query import select
from queuectl.store.protocol import Store
from queuectl.store.values import Entry


class _Moving:
    """A store whose jobs move while it is looked through: some are met in several states."""

    def __init__(self, **ids: str) -> None:
        """Take what is met in each state."""
        self._ids = ids

    def entries(self, state: State, _now: object, _limit: int | None = None) -> list[Entry]:
        """Return what is met in a state; what has ended, a minute after each other."""
        ids = self._ids.get(state, "").split()
        changed = [NOON - timedelta(minutes=int(each[1:])) for each in ids]
        return [
            Entry(id=each, state=state, changed_at=at if state in FINISHED else None)
            for each, at in zip(ids, changed, strict=True)
        ]

    def read(self, entry: Entry) -> Job:
        """Return the job as it is where it was met."""
        return make_job(entry.id, state=entry.state)


@pytest.mark.parametrize("limit", [None, 100, 20_000])
def test_a_job_that_moves_is_listed_once_where_it_was_met_last(limit: int | None) -> None:
    """A list without a limit, which is held packed, tells the same as one with a limit."""
    store = _Moving(
        blocked="j1 j2 j3", pending="j2 j4 j5 j4", processing="j5 j6", completed="j3 j7", dead="j6"
    )
    rows = select(cast("Store", store), tuple(State), NOON, limit=limit)
    listed = [(row.entry.id, str(row.entry.state)) for row in rows]
    assert sorted(listed) == sorted(
        [
            ("j1", "blocked"), ("j2", "pending"), ("j3", "completed"), ("j4", "pending"),
            ("j5", "processing"), ("j6", "dead"), ("j7", "completed"),
        ]
    )  # fmt: skip
    assert [each for each in listed if each[0] != "j4"] == [
        ("j5", "processing"), ("j2", "pending"), ("j1", "blocked"),
        ("j3", "completed"), ("j6", "dead"), ("j7", "completed"),
    ]  # fmt: skip
