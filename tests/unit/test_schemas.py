"""Documents of every schema that was ever written load for ever."""

import json
from pathlib import Path

import pytest
from tests.jobs import NOON, decode_job, drain

from queuectl.config import Defaults, Settings
from queuectl.document import SCHEMA, job_document
from queuectl.job import State, describe
from queuectl.policy import attempts_used
from queuectl.store import open_store
from queuectl.store.names import pending_name

DATA = Path(__file__).parents[1] / "data"
DEFAULTS = Defaults(Settings(max_retries=9, timeout=9.0, priority=9), "/nowhere", NOON)
VERSIONS = range(1, SCHEMA + 1)


def document(version: int) -> Path:
    """Return the file that holds a document of a schema."""
    return DATA / f"job-schema-{version}.json"


def test_every_schema_has_its_document() -> None:
    """A new schema comes with a document of its own, and no old one is taken away."""
    assert sorted(DATA.glob("job-schema-*.json")) == sorted(map(document, VERSIONS))


@pytest.mark.parametrize("version", VERSIONS)
def test_document_of_a_schema_loses_nothing_when_it_is_read(version: int) -> None:
    """What an older version has written means the same, and is written by the newest schema."""
    old = json.loads(document(version).read_text())
    assert old["schema"] == version
    job = decode_job(document(version).read_bytes(), "other", DEFAULTS)
    new = json.loads(json.dumps(job_document(job)))
    assert new == {**old, "schema": SCHEMA}
    assert (job.id, job.attempts, job.max_retries, job.next_attempt) == ("flaky-1", 1, 3, 2)


@pytest.mark.parametrize("version", VERSIONS)
def test_job_of_an_old_store_runs(tmp_path: Path, version: int) -> None:
    """A job that an older version has enqueued is claimed and settled by this one."""
    location = tmp_path / "store"
    store = open_store(str(location), create=True)
    path = location / "pending" / pending_name(5, NOON, "flaky-1")
    path.write_bytes(document(version).read_bytes())
    assert drain(store) == ["flaky-1"]
    job = store.get("flaky-1")
    assert (job.state, len(job.history)) == (State.COMPLETED, 2)
    store.close()


def test_an_outcome_that_only_a_newer_version_knows_is_kept(tmp_path: Path) -> None:
    """A worker of this one runs the job again, and hides or changes nothing of its history."""
    location = tmp_path / "store"
    store = open_store(str(location), create=True)
    newer = document(SCHEMA).read_text().replace('"failed"', '"out_of_memory"')
    (location / "pending" / pending_name(5, NOON, "flaky-1")).write_text(newer)
    (entry,) = store.entries(State.PENDING, NOON)
    waiting = store.read(entry)
    assert waiting is not None
    assert describe(waiting.history[0]).startswith("out of memory")
    assert attempts_used(waiting) == 1
    assert drain(store) == ["flaky-1"]
    recorded = [attempt["outcome"] for attempt in job_document(store.get("flaky-1"))["history"]]
    assert recorded == ["out_of_memory", "succeeded"]
    store.close()
