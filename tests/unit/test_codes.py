"""Exit codes: how lists of them are read, and what they decide about a retry."""

from pathlib import Path
from typing import Any

import pytest
from tests.jobs import DEFAULTS, NOON, decode_job

from queuectl.codes import NO_RULE, check_codes, includes
from queuectl.config import Defaults, Settings
from queuectl.document import encode_job
from queuectl.errors import BadDocument, UsageError
from queuectl.job import Attempt, Job, Outcome, State
from queuectl.policy import after_attempt
from queuectl.submit import job_from_user


@pytest.mark.parametrize(
    ("text", "checked"),
    [
        ("1", "1"),
        ("255", "255"),
        ("1,64-78", "1,64-78"),
        (" 1 , 64 - 78 ", "1,64-78"),
        ("7-7", "7-7"),
    ],
)
def test_a_list_is_written_without_spaces(text: str, checked: str) -> None:
    """What is read is what a document and the config hold, and reading it changes no more."""
    for rule in NO_RULE:
        assert check_codes(text, rule) == checked
        assert check_codes(checked, rule) == checked


@pytest.mark.parametrize(
    ("rule", "word", "other"), [("retry_on", "any", "none"), ("no_retry_on", "none", "any")]
)
def test_each_rule_has_a_word_of_its_own_for_no_rule(rule: str, word: str, other: str) -> None:
    """To retry on none would be the opposite of what it did."""
    assert check_codes(word.upper(), rule) == word
    with pytest.raises(UsageError, match=f", or {word}$"):
        check_codes(other, rule)


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "0", "256", "-1", "8-7", "1-", "1--2", "a", "1;2", "1 2", "0-5", "٣"]
)
def test_what_is_no_list_is_refused(text: str) -> None:
    """Nothing is guessed; 0 is the code of a success."""
    with pytest.raises(UsageError, match="exit codes from 1 to 255 and ranges of them"):
        check_codes(text, "no_retry_on")


@pytest.mark.parametrize(
    ("code", "is_in"), [(1, True), (2, False), (63, False), (64, True), (78, True), (79, False)]
)
def test_a_range_includes_both_ends(code: int, is_in: bool) -> None:
    """A list holds what it names and nothing beside."""
    assert includes("1,64-78", code) is is_in


def job(**changes: Any) -> Job:
    """Return a job that may run three times."""
    return Job(
        id="a", command="c", cwd="/", max_retries=3, created_at=NOON, updated_at=NOON, run_at=NOON,
        **changes,
    )  # fmt: skip


def attempt(outcome: Outcome, exit_code: int | None, signal: int | None = None) -> Attempt:
    """Return how the first attempt ended."""
    return Attempt(
        number=1, worker="w", started_at=NOON, finished_at=NOON, duration_seconds=0.0,
        exit_code=exit_code, signal=signal, outcome=outcome, log="a.1.log",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "code", "state"),
    [
        ({}, 75, State.PENDING),
        ({"retry_on": "75"}, 75, State.PENDING),
        ({"retry_on": "75"}, 1, State.DEAD),
        ({"no_retry_on": "64-78"}, 65, State.DEAD),
        ({"no_retry_on": "64-78"}, 75, State.DEAD),  # EX_TEMPFAIL is a code like any other
        ({"no_retry_on": "64-78"}, 1, State.PENDING),
        ({"retry_on": "1-100", "no_retry_on": "65"}, 65, State.DEAD),
        ({"retry_on": "1-100", "no_retry_on": "65"}, 64, State.PENDING),
        ({"no_retry_on": "127"}, 127, State.DEAD),
    ],
)
def test_the_exit_code_decides(rules: dict[str, str], code: int, state: State) -> None:
    """A code that is not to be retried ends in dead at once, its attempt counted."""
    outcome = Outcome.NOT_FOUND if code == 127 else Outcome.FAILED
    after = after_attempt(job(**rules), attempt(outcome, code), Settings(), NOON, 0.0)
    assert (after.state, after.attempts, len(after.history)) == (state, 1, 1)


@pytest.mark.parametrize(
    "ended",
    [
        attempt(Outcome.SIGNALLED, None, 9),
        attempt(Outcome.TIMED_OUT, None, 15),
        attempt(
            Outcome.TIMED_OUT, 3
        ),  # it caught the signal, and this code is no answer of its own
        attempt(Outcome.LOST, None),
        attempt(Outcome.NOT_STARTED, None),
    ],
)
def test_what_has_no_exit_code_of_its_own_is_always_retried(ended: Attempt) -> None:
    """The rules are about what a command answers, not about what was done to it."""
    rules = {"retry_on": "75", "no_retry_on": "3"}
    assert after_attempt(job(**rules), ended, Settings(), NOON, 0.0).state is State.PENDING


def test_a_rule_does_not_add_attempts() -> None:
    """max_retries ends a job whose code is to be retried."""
    last = job(retry_on="1", attempts=2)
    after = after_attempt(last, attempt(Outcome.FAILED, 1), Settings(), NOON, 0.0)
    assert after.state is State.DEAD


def test_a_document_holds_the_rules_only_where_there_are_some() -> None:
    """A document without them is, byte by byte, one of the first release."""
    assert b"retry_on" not in encode_job(job())
    ruled = job(retry_on="75", no_retry_on="1,64-78")
    assert b'"retry_on": "75",\n  "no_retry_on": "1,64-78",\n' in encode_job(ruled)
    assert decode_job(encode_job(ruled), "a", DEFAULTS) == ruled


@pytest.mark.parametrize(("value", "read"), [("1, 2", "1,2"), (None, None), ("none", None)])
def test_a_user_chooses_by_key(value: str | None, read: str | None) -> None:
    """Null or "none" makes a job without the config's rule."""
    defaults = Defaults(Settings(no_retry_on="9"), "/", NOON)
    document = {"command": "true", "no_retry_on": value}
    assert job_from_user(document, "a", defaults).no_retry_on == read
    assert job_from_user({"command": "true"}, "a", defaults).no_retry_on == "9"


@pytest.mark.parametrize("value", [75, True, [1], "0", "x", ""])
def test_a_wrong_value_is_named(value: object) -> None:
    """An error says which key it is, and what it must be."""
    with pytest.raises(BadDocument, match=r"'retry_on' is .*; it must be null or a string of exit"):
        job_from_user({"command": "true", "retry_on": value}, "a", DEFAULTS)


def test_a_document_of_the_first_release_loads_and_stays_as_it_is() -> None:
    """It has no rule about exit codes, and a rule of the config does not become its own."""
    data = (Path(__file__).parents[1] / "data" / "job-schema-1.json").read_bytes()
    loaded = decode_job(data, "flaky-1", DEFAULTS)
    assert (loaded.retry_on, loaded.no_retry_on) == (None, None)
    assert encode_job(loaded) == data
