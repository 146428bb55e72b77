"""The job document: what is read, what is refused, and what is written."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.jobs import decode_job

from queuectl.config import Defaults, Settings
from queuectl.document import MAX_DOCUMENT_BYTES, NewerSchema, encode_job
from queuectl.errors import BadDocument, BadId, shorten
from queuectl.job import (
    MAX_COMMAND_BYTES,
    OUTCOMES,
    Attempt,
    Job,
    Outcome,
    State,
    check_id,
    describe,
    new_id,
    shell_code,
)
from queuectl.strict_json import parse_object
from queuectl.submit import USER_KEYS, check_command, job_from_user

NOW = datetime(2026, 11, 24, 21, 29, 59, 1002, UTC)
DEFAULTS = Defaults(Settings(), "/home/u", NOW)

NOT_INSTANT = (
    "'soon' is not an instant; write ISO 8601, such as 2026-11-24T21:30 or 2026-11-24T20:30:00Z"
)
KEYS = f"are {', '.join(USER_KEYS)}, and any of your own that begins with x_"


def a_job(**changes: Any) -> Job:
    """Return a job with a history and a key from the future, changed as asked for."""
    attempt = Attempt(
        number=1,
        worker="w-1",
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=2),
        duration_seconds=2.0,
        exit_code=None,
        signal=9,
        outcome=Outcome.SIGNALLED,
        log="j.1.log",
        extra={"host": "a"},
    )
    fields: dict[str, Any] = {
        "id": "j",
        "command": "echo 'ü'",
        "state": State.DEAD,
        "priority": 0,
        "attempts": 1,
        "max_retries": 1,
        "timeout_seconds": 90.0,
        "cwd": "/srv",
        "env": {"A": "1"},
        "after": ("x",),
        "after_any": ("y",),
        "created_at": NOW,
        "updated_at": NOW,
        "run_at": NOW,
        "history": (attempt,),
        "extra": {"note": {"b": [1, None]}},
    }
    return Job(**(fields | changes))


def test_a_document_has_one_key_a_line_in_a_stable_order() -> None:
    """What is written is fixed to the letter, for cat, diff and other programs."""
    assert encode_job(a_job()).decode() == (
        "{\n"
        '  "schema": 1,\n'
        '  "id": "j",\n'
        '  "command": "echo \'ü\'",\n'
        '  "state": "dead",\n'
        '  "priority": 0,\n'
        '  "attempts": 1,\n'
        '  "max_retries": 1,\n'
        '  "timeout": 90.0,\n'
        '  "cwd": "/srv",\n'
        '  "env": {"A": "1"},\n'
        '  "after": ["x"],\n'
        '  "after_any": ["y"],\n'
        '  "created_at": "2026-11-24T21:29:59.001002Z",\n'
        '  "updated_at": "2026-11-24T21:29:59.001002Z",\n'
        '  "run_at": "2026-11-24T21:29:59.001002Z",\n'
        '  "history": [\n'
        '    {"number": 1, "worker": "w-1", "started_at": "2026-11-24T21:29:59.001002Z",'
        ' "finished_at": "2026-11-24T21:30:01.001002Z", "duration": 2.0, "exit_code": null,'
        ' "signal": 9, "outcome": "signalled", "log": "j.1.log", "host": "a"}\n'
        "  ],\n"
        '  "note": {"b": [1, null]}\n'
        "}\n"
    )


def test_a_document_is_read_back_as_it_was() -> None:
    """Writing and reading lose nothing, keys that are not known included."""
    assert decode_job(encode_job(a_job()), "other", DEFAULTS) == a_job()


def test_what_is_omitted_of_a_history_is_written_behind_it() -> None:
    """Only where something is, so that the other documents stay as every version wrote them."""
    job = a_job(history_omitted=4_950)
    assert b'\n  ],\n  "history_omitted": 4950,\n  "note"' in encode_job(job)
    assert decode_job(encode_job(job), "other", DEFAULTS) == job
    with pytest.raises(BadDocument, match="'history_omitted' is -1; it must be"):
        decode_job(b'{"command": "true", "history_omitted": -1}', "j", DEFAULTS)


def test_a_document_that_nobody_could_read_is_not_written() -> None:
    """It is refused with its size, whatever has made it so long."""
    job = a_job(extra={"note": "x" * MAX_DOCUMENT_BYTES})
    with pytest.raises(BadDocument, match=rf"job j would be written with \d+ bytes; {2**26} is"):
        encode_job(job)


@pytest.mark.parametrize("command", ["a\nb", "\x1b[31m", "\u2028", "😀", "\udcff raw byte"])
def test_any_text_survives(command: str) -> None:
    """Whatever a command may hold comes back, a byte that is no UTF-8 included."""
    data = encode_job(a_job(command=command))
    assert decode_job(data, "j", DEFAULTS).command == command
    assert json.loads(data)["command"] == command


def test_the_only_key_that_a_document_needs_is_its_command() -> None:
    """A document dropped in by hand gets the rest by default."""
    job = decode_job(b'{"command": "true"}', "stem", DEFAULTS)
    assert job == Job(
        id="stem",
        command="true",
        max_retries=3,
        cwd="/home/u",
        created_at=NOW,
        updated_at=NOW,
        run_at=NOW,
    )
    assert job.next_attempt == 1
    assert a_job().next_attempt == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a job document: bad JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "not a job document: not a JSON object"),
        (b'"x"', "not a job document: not a JSON object"),
        (b"null", "not a job document: not a JSON object"),
        (b"true", "not a job document: not a JSON object"),
        (b'{"a": NaN}', "not a job document: bad JSON: NaN is not JSON"),
        (b'{"a": -Infinity}', "not a job document: bad JSON: -Infinity is not JSON"),
        (b'{"a": 1e999}', "not a job document: bad JSON: 1e999 is out of range"),
        (b'{"a": 1, "a": 1}', "not a job document: bad JSON: duplicate key 'a'"),
        (b'{"a": "\xff"}', "not a job document: not UTF-8 at byte 7"),
        (b"[" * 100_000, "not a job document: nested more than 100 deep"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_object_is_refused(data: bytes, message: str) -> None:
    """Everything that is not one JSON object is an error that says why."""
    with pytest.raises(BadDocument) as caught:
        parse_object(data)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("id", 7, "it must be a string"),
        ("id", None, "it must be a string"),
        ("command", 7, "it must be a string"),
        ("command", ["ls"], "it must be a string"),
        ("priority", "5", "it must be a whole number from 0 to 9"),
        ("priority", 10, "it must be a whole number from 0 to 9"),
        ("priority", -1, "it must be a whole number from 0 to 9"),
        ("priority", True, "it must be a whole number from 0 to 9"),
        ("priority", 5.0, "it must be a whole number from 0 to 9"),
        ("priority", None, "it must be a whole number from 0 to 9"),
        ("max_retries", 1_000_001, "it must be a whole number from 0 to 1000000"),
        ("max_retries", -1, "it must be a whole number from 0 to 1000000"),
        ("timeout", 0, "it must be null or a number of seconds, above 0 and up to 100 years"),
        ("timeout", 3.2e9, "it must be null or a number of seconds, above 0 and up to 100 years"),
        ("timeout", "90", "it must be null or a number of seconds, above 0 and up to 100 years"),
        ("timeout", False, "it must be null or a number of seconds, above 0 and up to 100 years"),
        ("cwd", 1, "it must be a string"),
        ("cwd", None, "it must be a string"),
        ("env", [], "it must be an object of strings"),
        ("env", {"A": 1}, "it must be a string"),
        ("after", "a", "it must be a list of ids"),
        ("after", [1], "it must be a list of ids"),
        ("after_any", ["../x"], "it must be a list of ids"),
        ("run_at", 0, "it must be an instant in ISO 8601"),
        ("run_at", None, "it must be an instant in ISO 8601"),
    ],
)
def test_a_wrong_type_is_named(key: str, value: object, expected: str) -> None:
    """The error has the key, the value and what it must be."""
    with pytest.raises(BadDocument) as caught:
        job_from_user({"command": "true", key: value}, "j", DEFAULTS)
    message = str(caught.value)
    assert repr(key) in message
    assert message.endswith(expected)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "'command' is missing"),
        ({"command": ""}, "the command is empty"),
        ({"command": " \n"}, "the command is empty"),
        ({"command": "a\0b"}, "'command' holds a NUL character, which no command can be given"),
        ({"command": "\ud800"},
         "'command' holds a lone surrogate at character 0, which is no text"),
        ({"command": "a", "cwd": "/\0"},
         "'cwd' holds a NUL character, which no command can be given"),
        ({"command": "a", "env": {"A=B": "1"}}, "'A=B' is not the name of an environment variable"),
        ({"command": "a", "env": {"": "1"}}, "'' is not the name of an environment variable"),
        ({"command": "a", "env": {"A": "\0"}},
         "'env': A holds a NUL character, which no command can be given"),
        ({"command": "a", "run_at": "soon"},
         f"'run_at': {NOT_INSTANT}"),
        ({"command": "a", "comand": "b"},
         f"'comand' is not a key that can be chosen; did you mean 'command'? Those {KEYS}"),
        ({"command": "a", "state": "dead"},
         f"'state' is not a key that can be chosen; those {KEYS}"),
        ({"command": "a", "X_note": 1},
         f"'X_note' is not a key that can be chosen; those {KEYS}"),
        ({"command": "a", "x_": 1},
         f"'x_' is not a key that can be chosen; those {KEYS}"),
        ({"id": "j", "unreadable": "bad JSON"},
         "this job could not be read when it was listed: 'bad JSON'"),
        ({"command": "a", "x_a": "1" * 1_048_576},
         ("the keys that begin with x_ have 1048587 bytes; 1048576 is the most: put what they hold"
         " into a file, and name that")),
    ],
)  # fmt: skip
def test_what_a_user_may_not_say_is_refused(document: dict[str, Any], message: str) -> None:
    """A key that nobody may choose, or a value that no kernel takes, is never silently dropped."""
    with pytest.raises(BadDocument) as caught:
        job_from_user(document, "j", DEFAULTS)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", "gone"),
        ("attempts", -1),
        ("history", {}),
        ("history", [1]),
        ("history", [{"outcome": "Fine!", "started_at": "2026-11-24T21:29:59Z"}]),
        ("history", [{"outcome": "failed"}]),
    ],
)
def test_a_document_of_the_store_is_checked_too(key: str, value: object) -> None:
    """What was recorded is read with the same care."""
    with pytest.raises(BadDocument, match=f"'{key}'|'started_at'"):
        decode_job(json.dumps({"command": "true", key: value}).encode(), "j", DEFAULTS)


def test_a_newer_schema_is_not_guessed_at() -> None:
    """A document that a newer version wrote is refused, with the way out."""
    with pytest.raises(NewerSchema, match=r"job j has schema 2.* knows 1: upgrade queuectl$"):
        decode_job(b'{"schema": 2, "command": "true"}', "j", DEFAULTS)


@pytest.mark.parametrize("text", ["a", "0", "_x", "A.b-c_9", "x" * 100])
def test_an_id_is_what_a_file_can_be_called(text: str) -> None:
    """Every character that is allowed is, up to 100 of them."""
    assert check_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", ".x", "-x", "../x", "a/b", "a b", "a\n", "\na", "ä", "a\0", "x" * 101, "٣"],
)
def test_what_is_no_id_is_refused_before_it_becomes_a_path(text: str) -> None:
    """Nothing that could leave its directory, or hide in it, is an id."""
    with pytest.raises(BadId, match=r"is not an id; use 1 to 100 of A-Z a-z 0-9"):
        check_id(text)


def test_made_ids_are_ids_and_differ() -> None:
    """Ids made one microsecond apart never collide, and those made at once hardly ever do."""
    ids = {new_id(NOW + timedelta(microseconds=index)) for index in range(1000)}
    assert len(ids) == 1000
    assert {check_id(each) for each in ids} == ids
    assert {len(each) for each in ids} == {18}
    assert all(each == each.lower() for each in ids)
    at_once = {new_id(NOW) for _ in range(1000)}
    assert len(at_once) == 1000
    # The microsecond alone keeps those of one batch apart, whatever the random bits are.
    assert len({each[7:] for each in ids}) == 1000


def test_a_command_is_as_long_as_the_kernel_takes() -> None:
    """The bound counts bytes, and one more is refused with the way out."""
    assert check_command("x" * MAX_COMMAND_BYTES)
    with pytest.raises(
        BadDocument, match=r"has 131072 bytes; 131071 is the most .*: put it into a"
    ):
        check_command("x" * (MAX_COMMAND_BYTES - 1) + "ü")


@pytest.mark.parametrize(
    ("ended", "text", "short", "code"),
    [
        ({"outcome": Outcome.SUCCEEDED, "exit_code": 0}, "succeeded", "succeeded", 0),
        ({"outcome": Outcome.FAILED, "exit_code": 3}, "failed (exit code 3)", "exit 3", 3),
        ({"outcome": Outcome.FAILED}, "failed", "failed", 1),
        ({"outcome": Outcome.NOT_FOUND, "exit_code": 127}, "not found (exit code 127)",
         "not found", 127),
        ({"outcome": Outcome.NOT_STARTED}, "not started", "not started", 126),
        ({"outcome": Outcome.SIGNALLED, "signal": 9}, "killed (SIGKILL)", "SIGKILL", 137),
        ({"outcome": Outcome.SIGNALLED, "signal": 40}, "killed (signal 40)", "signal 40", 168),
        ({"outcome": Outcome.TIMED_OUT, "signal": 15}, "timed out (SIGTERM)", "timed out", 124),
        ({"outcome": Outcome.TIMED_OUT, "exit_code": 0}, "timed out (exit code 0)", "timed out",
         124),
        ({"outcome": Outcome.LOST}, "lost", "lost", 1),
        ({"outcome": Outcome.CANCELLED, "signal": 15}, "cancelled (SIGTERM)", "cancelled", 1),
    ],
)  # fmt: skip
def test_an_attempt_is_described(ended: dict[str, Any], text: str, short: str, code: int) -> None:
    """Its outcome, its cause and its exit status are the same wherever they are shown."""
    attempt = a_job().ended_attempt(7, worker="w-1", started_at=NOW, finished_at=NOW, **ended)
    assert (describe(attempt), describe(attempt, short=True)) == (text, short)
    assert (shell_code(attempt), attempt.log) == (code, "j.7.log")


def test_every_outcome_has_a_meaning() -> None:
    """No outcome is shown, counted or reported by chance."""
    assert list(OUTCOMES) == list(Outcome)


def test_a_quoted_value_is_short_and_on_one_line() -> None:
    """A message never carries a whole document, nor a line feed of one."""
    assert shorten("a\nb") == r"'a\nb'"
    assert shorten("x" * 100) == "'" + "x" * 55 + "...'"
