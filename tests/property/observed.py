"""Compare what a store shows with what the model tells."""

from dataclasses import replace
from datetime import datetime

from tests.jobs import named_parents
from tests.property.known import ENDS, Jobs, Known, known_job
from tests.property.model import Model

from queuectl.job import State
from queuectl.store.protocol import Store
from queuectl.store.values import Counts, Entry


def observe(store: Store, now: datetime) -> Jobs:
    """Return what a store shows of each job; fail where one is shown twice."""
    from queuectl.errors import BadDocument

    seen: Jobs = {}
    for state in State:
        for entry in store.entries(state, now):
            dropped = state is State.PENDING and entry.run_at is None
            key = f"+{entry.id}" if dropped else entry.id
            assert key not in seen, f"{key} is {seen[key].state} and {state}"
            try:
                job = store.read(entry)
            except BadDocument:
                seen[key] = replace(_torn(entry), id=key)
                continue
            assert job is not None, f"{entry.id} is told of and cannot be read"
            assert (job.id, job.state) == (entry.id, state)
            assert [each.number for each in job.history] == list(range(1, len(job.history) + 1))
            known = known_job(job)
            if state is State.PENDING:
                assert entry.run_at in (None, job.run_at)
                assert entry.run_at is None or entry.priority == job.priority
                known = replace(known, priority=entry.priority or 0, run_at=entry.run_at)
            seen[key] = replace(known, id=key, parent=entry.parent, attempt=entry.attempt)
    commands = [known.command for known in seen.values() if not known.torn]
    assert len(commands) == len(set(commands)), f"a job is there twice: {sorted(commands)}"
    return seen


def _torn(entry: Entry) -> Known:
    assert entry.priority is not None
    return Known(
        id=entry.id, state=entry.state, priority=entry.priority, run_at=entry.run_at, torn=True
    )


def check_lookups(store: Store, model: Model, now: datetime) -> None:
    """Check that lists, counts and finds tell what the model tells."""
    pending = model.in_state(State.PENDING)
    due = [known for known in pending if known.is_due(now)]
    later = [known for known in pending if not known.is_due(now)]
    counts = Counts(
        by_state={state: len(model.in_state(state)) for state in State},
        due=len(due),
        oldest_due=min((each.run_at for each in due if each.run_at), default=None),
        next_due=min((each.run_at for each in later if each.run_at), default=None),
        unreadable=model.unreadable,
    )
    _must_be("counts", store.counts(now), counts)
    # What was dropped is due now, after all that have become due by now.
    in_order = sorted(
        due, key=lambda each: (each.priority, each.run_at or now, each.dropped, each.filed)
    )
    in_order += sorted(later, key=lambda each: (each.run_at or now, each.priority, each.filed))
    ids = [known.id.lstrip("+") for known in in_order]
    _must_be("pending", [entry.id for entry in store.entries(State.PENDING, now)], ids)
    _must_be("first", [entry.id for entry in store.entries(State.PENDING, now, 2)], ids[:2])
    states = {known.id: known.state for known in model.jobs.values() if not known.dropped}
    for known in due:
        # The store is walked through as jobs move: what is blocked is met before what is pending.
        if known.dropped and states.get(known.id[1:]) is not State.BLOCKED:
            states[known.id[1:]] = known.state
    found = store.find([*states, "nobody"])
    _must_be("found", {job_id: entry.state for job_id, entry in found.items()}, states)
    for state in State:
        ids = sorted(known.id.lstrip("+") for known in model.in_state(state))
        _must_be(state, sorted(store.ids(state)), ids)
        entries = store.entries(state, now)
        if state in ENDS:
            told = [entry.changed_at for entry in entries]
            in_time = sorted(told, key=lambda at: at or now, reverse=True)
            _must_be(f"ends of {state}", told, in_time)
            _must_be(
                f"all {state}", sorted(entry.id for entry in store.purging.finished(state)), ids
            )
        if state is State.BLOCKED:
            parents = {entry.parent: entry.parent_state for entry in entries}
            ends = {parent: model.end_of(parent or "") for parent in parents}
            _must_be("parents", parents, ends)
    _must_be("named parents", named_parents(store), model.named_parents())


def _must_be(what: str, told: object, expected: object) -> None:
    assert told == expected, f"{what}: {told}, not {expected}"
