"""What the files of a directory store are called."""

from datetime import UTC, datetime

import pytest
from tests.jobs import NOON

from queuectl.store.names import (
    due_text,
    filed_name,
    is_pending_name,
    is_stranger,
    looks_pending,
    parse_due,
    parse_filed,
    parse_processing,
    pending_due,
    pending_id,
    pending_name,
    pending_priority,
    processing_name,
)


def test_pending_name_is_priority_due_time_and_id() -> None:
    """The name of a waiting job is the one that the manual shows."""
    at = datetime(2026, 11, 24, 21, 29, 59, 1002, tzinfo=UTC)
    name = pending_name(5, at, "sleepy-job")
    assert name == "5-20261124T212959.001002Z-sleepy-job.json"
    assert (pending_priority(name), pending_due(name), pending_id(name)) == (
        5,
        "20261124T212959.001002Z",
        "sleepy-job",
    )
    assert parse_due(pending_due(name)) == at
    assert is_pending_name(name)
    assert looks_pending(name)


def test_longest_pending_name_has_131_characters() -> None:
    """The memory that a pool shares has room for any pending name and a newline."""
    assert len(pending_name(9, NOON, "x" * 100)) == 131


@pytest.mark.parametrize(
    "at", [datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)], ids=str
)
def test_due_time_has_one_width_in_every_year(at: datetime) -> None:
    """The first and the last instant have names as long as any other."""
    assert len(due_text(at)) == 23
    assert parse_due(due_text(at)) == at


@pytest.mark.parametrize("text", ["20261332T000000.000000Z", "20260101T250000.000000Z", "", "x"])
def test_time_that_no_calendar_has_is_the_last_one(text: str) -> None:
    """What a hand wrote into a name is never an error."""
    assert parse_due(text) == datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        "5-20260102T120000.250000Z-.json",
        "5-20260102T120000.250000Z-a b.json",
        "5-20260102T120000.250000Z--a.json",
        "5-20260102T120000.250000Z-a.json\n",
        "5-20260102T120000.25000Z-a.json",
        "x-20260102T120000.250000Z-a.json",
        "5-20260102T12000\N{ARABIC-INDIC DIGIT ZERO}.250000Z-a.json",
        "55-20260102T120000.250000Z-a.json",
        "a.json",
        "5-20260102T120000.250000Z-" + "x" * 101 + ".json",
    ],
)
def test_name_that_is_not_quite_a_pending_one_is_none(name: str) -> None:
    """Only the exact form counts; anything else that ends in .json is adopted."""
    assert not is_pending_name(name)
    assert is_stranger(name) is name.endswith(".json")


@pytest.mark.parametrize("name", [".a.json", "a.json.tmp", "a", "a.JSON", ".json", "README"])
def test_hidden_and_other_files_are_no_strangers(name: str) -> None:
    """What does not end in .json, or is hidden, is somebody else's."""
    assert not is_stranger(name)


def test_every_pending_name_looks_like_one() -> None:
    """The quick look lets no pending name through."""
    for priority in range(10):
        assert looks_pending(pending_name(priority, NOON, "a"))
    assert not looks_pending("a.json")
    assert not looks_pending("")


@pytest.mark.parametrize(("job_id", "attempt"), [("a", 1), ("a.1", 12), ("x.2.3", 999_999_999)])
def test_processing_name_is_id_and_attempt(job_id: str, attempt: int) -> None:
    """The last number is the attempt, also where the id holds dots and numbers."""
    name = processing_name(job_id, attempt)
    assert name == f"{job_id}.{attempt}.json"
    assert parse_processing(name) == (job_id, attempt)


@pytest.mark.parametrize("name", ["a.json", "a.0.json", "a.01.json", "a.x.json", ".1.json", "a.1"])
def test_other_names_are_not_running_jobs(name: str) -> None:
    """What is no running job's name is told apart."""
    assert parse_processing(name) is None


def test_filed_name_is_the_id() -> None:
    """Other states file a job by its id alone."""
    assert filed_name("a.1") == "a.1.json"
    assert parse_filed("a.1.json") == "a.1"
    for name in (".json", "-a.json", "a", "a/b.json", "..json", "a.json\n"):
        assert parse_filed(name) is None
