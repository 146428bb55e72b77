"""Documents, names, durations and lists hold for whatever they are given."""

import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.jobs import DEFAULTS, NOON, decode_job

from queuectl.clock import (
    MAX_DURATION_SECONDS,
    format_duration,
    format_instant,
    later,
    parse_duration,
    parse_instant,
)
from queuectl.document import NewerSchema, encode_job, job_document
from queuectl.errors import BadDocument, BadId, QueuectlError, UsageError
from queuectl.job import (
    ID_PATTERN,
    MAX_ATTEMPT,
    MAX_MAX_RETRIES,
    Attempt,
    Job,
    Outcome,
    State,
    new_id,
)
from queuectl.store.bounded import Smallest
from queuectl.store.names import (
    due_text,
    is_pending_name,
    looks_pending,
    parse_due,
    parse_filed,
    parse_processing,
    pending_id,
    pending_name,
    pending_priority,
    processing_name,
)

instants = st.datetimes(timezones=st.just(UTC))
ids = st.from_regex(ID_PATTERN, fullmatch=True)
variables = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
# What a command line may hold: any text but NUL, and bytes that are no UTF-8.
texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary().map(lambda data: os.fsdecode(data.replace(b"\0", b""))),
)
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | numbers | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)
_ATTEMPT_KEYS = set(Attempt.__annotations__) | {"duration"}
attempts = st.builds(
    Attempt,
    number=st.integers(1, MAX_ATTEMPT),
    worker=texts,
    started_at=instants,
    finished_at=instants,
    duration_seconds=st.none() | st.floats(0, 1e9),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    outcome=st.sampled_from(Outcome),
    log=texts,
    extra=st.dictionaries(plain.filter(lambda key: key not in _ATTEMPT_KEYS), values, max_size=2),
)


def _job_keys() -> set[str]:
    job = Job(
        id="a", command="x", max_retries=1, cwd="/",
        created_at=NOON, updated_at=NOON, run_at=NOON,
    )  # fmt: skip
    return {*job_document(job), *Job.__annotations__}


_JOB_KEYS = _job_keys()
jobs = st.builds(
    Job,
    id=ids,
    command=texts,
    state=st.sampled_from(State),
    priority=st.integers(0, 9),
    attempts=st.integers(0, 2**53),
    max_retries=st.integers(0, MAX_MAX_RETRIES),
    timeout_seconds=st.none() | st.floats(1e-9, MAX_DURATION_SECONDS),
    cwd=texts.map(lambda text: "/" + text),
    retry_on=st.none(),
    no_retry_on=st.none(),
    env=st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), texts, max_size=3
    ),
    after=st.lists(ids, unique=True, max_size=3).map(tuple),
    after_any=st.lists(ids, unique=True, max_size=3).map(tuple),
    created_at=instants,
    updated_at=instants,
    run_at=instants,
    history=st.lists(attempts, max_size=3).map(tuple),
    history_omitted=st.integers(0, MAX_ATTEMPT),
    extra=st.dictionaries(plain.filter(lambda key: key not in _JOB_KEYS), values, max_size=3),
)


@given(jobs)
def test_document_comes_back_as_it_was_written(job: Job) -> None:
    """Whatever a job holds, keys that are not known included, is read as it was written."""
    data = encode_job(job)
    assert decode_job(data, "other", DEFAULTS) == job
    assert encode_job(decode_job(data, "other", DEFAULTS)) == data


@given(jobs)
def test_document_is_json_with_a_key_on_each_line(job: Job) -> None:
    """A document is UTF-8 and JSON for every other program, too."""
    text = encode_job(job).decode()
    document = json.loads(text)
    assert list(document) == list(job_document(job))
    assert text.endswith("}\n")
    lines = [line for line in text.split("\n") if line.startswith('  "')]
    assert len(lines) >= len(document)


@given(st.binary())
@example(b'{"command": "\\ud800"}')
@example(b'{"command": "\\udcff"}')
@example(b'{"a": NaN, "command": "x"}')
@example(b'{"command": "x", "timeout": 1e999}')
@example(b'{"command": "x", "priority": true}')
@example(b'{"command": "x", "run_at": "0001-01-01T00:00:00+14:00"}')
@example(b'\xef\xbb\xbf{"command": "x"}')
@example(b"[" * 20_000)
def test_any_bytes_are_a_job_or_a_bad_document(data: bytes) -> None:
    """Nothing that lies in a file is more than a bad document."""
    try:
        job = decode_job(data, "stem", DEFAULTS)
    except (BadDocument, BadId, NewerSchema):
        return
    assert decode_job(encode_job(job), "stem", DEFAULTS) == job


_KEYS = st.sampled_from(sorted(_JOB_KEYS))


@given(st.dictionaries(_KEYS, values | instants.map(format_instant) | ids, max_size=6), values)
def test_any_object_is_a_job_or_a_bad_document(document: dict[str, Any], command: Any) -> None:
    """Whatever stands under the keys that are known, what is read can be written and read again."""
    data = json.dumps({"command": command, **document}).encode()
    try:
        job = decode_job(data, "stem", DEFAULTS)
    except QueuectlError:
        return
    again = decode_job(encode_job(job), "stem", DEFAULTS)
    assert again == job
    assert encode_job(again) == encode_job(job)


# --- names ---


@given(st.integers(0, 9), instants, ids)
def test_pending_name_tells_what_it_was_made_of(priority: int, at: datetime, job_id: str) -> None:
    """Priority, due time and id come back from a name, which is a pending one."""
    name = pending_name(priority, at, job_id)
    assert is_pending_name(name)
    assert looks_pending(name)
    assert (pending_priority(name), parse_due(name[2:25]), pending_id(name)) == (
        priority,
        at,
        job_id,
    )


@given(*[st.tuples(st.integers(0, 9), instants, ids)] * 2)
def test_order_of_names_is_the_order_of_running(
    one: tuple[int, datetime, str], other: tuple[int, datetime, str]
) -> None:
    """Names sort by priority, due time and id."""
    names = sorted([pending_name(*one), pending_name(*other)])
    # ".json" ends an id in a name, so that of two ids one may sort otherwise than alone.
    keys = sorted([(*one[:2], one[2] + ".json"), (*other[:2], other[2] + ".json")])
    assert names == [pending_name(key[0], key[1], key[2][:-5]) for key in keys]


@given(instants, instants)
def test_order_of_due_texts_is_that_of_time(one: datetime, other: datetime) -> None:
    """Texts of instants sort by time."""
    assert (one < other) == (due_text(one) < due_text(other))


@given(ids, st.integers(1, 999_999_999))
def test_processing_name_tells_id_and_attempt(job_id: str, attempt: int) -> None:
    """The id and the attempt come back from the name of a running job."""
    assert parse_processing(processing_name(job_id, attempt)) == (job_id, attempt)


@given(st.text())
def test_any_text_is_a_name_or_none(text: str) -> None:
    """Whatever a file is called, it is told what it is; an id is never a path."""
    parse_due(text)
    looks_pending(text)
    job_id = parse_filed(text)
    if job_id is not None:
        assert "/" not in job_id
        assert not job_id.startswith((".", "-"))
    if is_pending_name(text):
        assert looks_pending(text)


@given(st.lists(st.floats(0, 3e9), min_size=2, max_size=50))
def test_made_ids_are_ids(moments: list[float]) -> None:
    """An id that is made at any moment may be chosen, too, and is not made twice."""
    made = [new_id(later(NOON, seconds)) for seconds in moments]
    assert all(parse_filed(each + ".json") == each for each in made)
    assert len(set(made)) == len(made)


# --- times ---


@given(instants)
def test_instant_comes_back(at: datetime) -> None:
    """An instant is read as it was written."""
    assert parse_instant(format_instant(at)) == at


@given(st.integers(1, int(MAX_DURATION_SECONDS)))
def test_duration_in_whole_seconds_comes_back(seconds: int) -> None:
    """What is printed as a duration can be typed as one."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.floats(0.001, MAX_DURATION_SECONDS))
def test_duration_comes_back_as_it_is_shown(seconds: float) -> None:
    """A duration is shown to the second, or to the millisecond below a minute."""
    shown = parse_duration(format_duration(seconds))
    assert shown == pytest.approx(seconds, abs=0.5 if seconds >= 59.9 else 0.0005001)


@given(st.text())
@example("1e5")
@example("٣s")
@example("1h30")
@example("9" * 400)
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    """What is typed as a duration is within its bounds, or refused."""
    try:
        seconds = parse_duration(text)
    except UsageError:
        return
    assert 0 < seconds <= MAX_DURATION_SECONDS


@given(instants, st.floats(0, MAX_DURATION_SECONDS))
def test_later_is_never_earlier(at: datetime, seconds: float) -> None:
    """No length of time overflows the calendar."""
    assert later(at, seconds) >= at


# --- lists ---


@given(st.lists(st.text(max_size=5), max_size=60), st.integers(1, 10))
def test_smallest_are_the_smallest(stream: list[str], most: int) -> None:
    """What is kept of a stream is what sorting all of it would give; the cut tells of more."""
    smallest = Smallest(most)
    for each in stream:
        smallest.add(each)
    kept = []
    while smallest:
        kept.append(smallest.pop())
    assert kept == sorted(stream)[: len(kept)]
    if smallest.cut is None:
        assert len(kept) == len(stream)
    else:
        assert most <= len(kept) < 2 * most
        assert smallest.cut == sorted(stream)[len(kept)]
