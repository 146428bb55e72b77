"""The page about the store names every directory, file, key and word that the store has."""

import re

from tests.docs.pages import ROOT

from queuectl.clock import utc_now
from queuectl.document import job_document
from queuectl.job import Attempt, Job, Outcome, State
from queuectl.store import layout

PAGE = (ROOT / "docs" / "store-format.md").read_text()
CODE = {name for span in re.findall(r"`([^`\n]+)`", PAGE) for name in re.split(r"[/ ,]+", span)}
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()


def test_each_directory_and_file_of_a_store_is_explained() -> None:
    """Nothing lies in a store that nobody has told of."""
    assert {*layout.DIRECTORIES, *layout.FILES} - CODE == set()


def test_each_key_of_a_document_is_explained() -> None:
    """Who writes a document knows what each key means."""
    now = utc_now()
    job = Job(
        id="a", command="b", max_retries=1, cwd="/", created_at=now, updated_at=now, run_at=now,
        retry_on="1", no_retry_on="2",
    )  # fmt: skip
    attempt = Attempt(
        number=1, worker="w", started_at=now, finished_at=now, duration_seconds=1, exit_code=0,
        signal=None, outcome=Outcome.SUCCEEDED, log="l",
    )  # fmt: skip
    document = job_document(job._replace(history=(attempt,)))
    assert {*document, *document["history"][0]} - CODE == set()


def test_each_outcome_and_state_is_explained() -> None:
    """A word that a document or a table shows can be looked up."""
    assert set(Outcome) - CODE == set()
    assert {state for state in State if f"**{state}**" not in GLOSSARY} == set()
