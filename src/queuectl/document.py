"""The JSON document that holds a job: reading, checking and writing it.

A document is one JSON object with a stable key order, one key a line and one attempt a line, so
that ``cat`` and ``diff`` serve. Keys that this version does not know are kept. What a user may
write in a document of their own is a part of it (``USER_KEYS``); what was recorded is the rest.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from queuectl.clock import MAX_DURATION_SECONDS, format_instant, parse_instant
from queuectl.codes import NO_RULE, check_codes
from queuectl.errors import BadDocument, ConfigError, UsageError, shorten
from queuectl.job import (
    MAX_ATTEMPT,
    MAX_COMMAND_BYTES,
    MAX_ENVIRONMENT_BYTES,
    MAX_MAX_RETRIES,
    MAX_PATH_BYTES,
    MAX_PRIORITY,
    NOTHING,
    Attempt,
    Defaults,
    Job,
    Outcome,
    State,
    check_id,
    is_id,
)

SCHEMA = 1
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
# What a job may take when it comes to run, so that it can be read again with its attempts.
MAX_DOCUMENT_BYTES_TO_RUN = MAX_DOCUMENT_BYTES - 1024 * 1024
MAX_NESTING = 100

_SURROGATE = re.compile("[\ud800-\udfff]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Texts are looked up here: before Python 3.12 an enum's own "in" refuses what is no member.
_STATES = frozenset(State)
_OUTCOMES = frozenset(Outcome)


class NewerSchema(ConfigError):
    """Report a document that a newer version of queuectl wrote; it is left as it is."""


# --- reading ------------------------------------------------------------------------------------


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Return the JSON object that a document holds.

    Raises: BadDocument for anything else, NaN, a key that stands twice and nesting too deep
    included. How deep is not left to the stack: what one process reads, all can read and write.
    """
    try:
        if isinstance(data, bytes):
            data = data.decode()
        value = _from_json(data)
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeDecodeError as error:
        raise BadDocument(f"not a job document: not UTF-8 at byte {error.start}") from error
    except (json.JSONDecodeError, _NotJson) as error:
        raise BadDocument(f"not a job document: bad JSON: {error}") from error
    except ValueError as error:  # all that is left is what Python says of a long whole number
        most = sys.get_int_max_str_digits()
        raise BadDocument(
            f"not a job document: bad JSON: a number has more than {most} digits"
        ) from error
    if not isinstance(value, dict):
        raise BadDocument(f"not a job document: a JSON {_json_type(value)}, not an object")
    # What has fewer brackets than that cannot be deeper, and nearly all documents have.
    if data.count("[") + data.count("{") > MAX_NESTING and _is_deep(value):
        raise _too_deep()
    return value


class _NotJson(ValueError):
    """Report what Python takes for JSON, and nobody else."""


def _too_deep() -> BadDocument:
    return BadDocument(f"not a job document: nested more than {MAX_NESTING} deep")


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, list):
                below += each
        level = below
    return any(isinstance(each, dict | list) for each in level)


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:  # 1e999 is read as infinity, which could not be written again
        raise _NotJson(f"{text[:60]} is out of range")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _NotJson(f"the key {shorten(key)} stands twice")
            seen.add(key)
    return value


def _json_type(value: object) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return "null" if value is None else names.get(type(value), "object")


_from_json = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys
).decode


class _Reader:
    """Take typed values out of a document; what is left over is what the schema does not know."""

    def __init__(self, document: Mapping[str, Any], what: str = "") -> None:
        self.rest = dict(document)
        self.what = what

    def fail(self, key: str, value: object, expected: str) -> NoReturn:
        raise BadDocument(f"{self.what}{key!r} is {shorten(value)}; it must be {expected}")

    def take(self, key: str, kind: type | tuple[type, ...], expected: str, default: Any) -> Any:
        value = self.rest.pop(key, default)
        if value is default:
            return value
        # bool is an int in Python, but true is not a number in JSON
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(key, value, expected)
        return value

    def text(self, key: str, default: str | None) -> str:
        value = self.take(key, str, "a string", default)
        if value is None:
            raise BadDocument(f"{self.what}{key!r} is missing")
        return check_text(value, f"{self.what}{key!r}")

    def path(self, key: str, default: str) -> str:
        value = self.text(key, default)
        if not value.startswith("/"):
            self.fail(key, value, "an absolute path")
        return value

    def integer(self, key: str, default: int, least: int, most: int) -> int:
        expected = f"a whole number from {least} to {most}"
        value: int = self.take(key, int, expected, default)
        if value is not default and not least <= value <= most:
            self.fail(key, value, expected)
        return value

    def seconds(self, key: str, default: float | None) -> float | None:
        expected = "null or a number of seconds, above 0 and up to 100 years"
        value = self.take(key, (int, float, type(None)), expected, default)
        if value is None or value is default:
            return value
        if not 0 < value <= MAX_DURATION_SECONDS:
            self.fail(key, value, expected)
        return float(value)

    def duration(self, key: str) -> float | None:
        expected = "null or a number of seconds, from 0 to 100 years"
        value: float | None = self.take(key, (int, float, type(None)), expected, None)
        if value is not None and not 0 <= value <= MAX_DURATION_SECONDS:
            self.fail(key, value, expected)
        return value

    def number(self, key: str, least: int, most: int) -> int | None:
        expected = f"null or a whole number from {least} to {most}"
        value: int | None = self.take(key, (int, type(None)), expected, None)
        if value is not None and not least <= value <= most:
            self.fail(key, value, expected)
        return value

    def instant(self, key: str, default: datetime | None) -> datetime:
        value = self.take(key, str, "an instant in ISO 8601", default)
        if isinstance(value, str):
            try:
                return parse_instant(value)
            except UsageError as error:
                raise BadDocument(f"{self.what}{key!r}: {error}") from error
        if value is None:
            raise BadDocument(f"{self.what}{key!r} is missing")
        return value  # type: ignore[no-any-return]

    def codes(self, key: str, default: str | None) -> str | None:
        expected = "null or a string of exit codes from 1 to 255, such as '1,64-78'"
        value = self.take(key, (str, type(None)), expected, default)
        if value is None or value is default:
            return default if value is default else None
        try:
            checked = check_codes(value, key)
        except UsageError:
            self.fail(key, value, expected)
        return None if checked == NO_RULE[key] else checked

    def ids(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list, "a list of ids", ())
        for value in values:
            if not isinstance(value, str) or not is_id(value):
                self.fail(key, value, "a list of ids")
        return tuple(dict.fromkeys(values))

    def env(self, default: Mapping[str, str]) -> Mapping[str, str]:
        values = self.take("env", dict, "an object of strings", default)
        if values is not default:
            for name, value in values.items():
                check_env(name, value)
        return values  # type: ignore[no-any-return]


def check_text(text: str, what: str) -> str:
    """Return text that can be handed to the kernel.

    Raises: BadDocument for a NUL character, and for a lone surrogate that stands for no byte.
    """
    if "\0" in text:
        raise BadDocument(f"{what} holds a NUL character, which no command can be given")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadDocument(
            f"{what} holds a lone surrogate at character {error.start}, which is no text"
        ) from error
    return text


def check_command(text: str) -> str:
    """Return a command that the shell can be given.

    Raises: BadDocument where it is empty, too long for the kernel, or no text.
    """
    if not text.strip():
        raise BadDocument("the command is empty")
    check_text(text, "the command")
    if (size := len(text.encode("utf-8", "surrogateescape"))) > MAX_COMMAND_BYTES:
        raise BadDocument(
            f"the command has {size} bytes; {MAX_COMMAND_BYTES} is the most that the kernel takes:"
            " put it into a script"
        )
    return text


def check_env(name: object, value: object) -> None:
    """Raise BadDocument where a variable of the environment is not a name and a text."""
    if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
        raise BadDocument(f"{shorten(name)} is not the name of an environment variable")
    what = f"'env': {name[:60]}"
    if not isinstance(value, str):
        raise BadDocument(f"{what} is {shorten(value)}; it must be a string")
    check_text(value, what)
    if (size := len(f"{name}={value}".encode("utf-8", "surrogateescape"))) > MAX_COMMAND_BYTES:
        raise BadDocument(
            f"{what} has {size} bytes with its name; {MAX_COMMAND_BYTES} is the most that the"
            " kernel takes"
        )


USER_KEYS = (
    "id", "command", "priority", "max_retries", "timeout", "retry_on", "no_retry_on", "cwd", "env",
    "after", "after_any", "run_at",
)  # fmt: skip
# What is written down of a job as it runs: a new one has none of it.
RECORDED_KEYS = frozenset({
    "state", "attempts", "created_at", "updated_at", "history", "history_omitted",
})  # fmt: skip
OWN_PREFIX = "x_"  # a producer's own keys begin with it
MAX_OWN_BYTES = 1024 * 1024


def job_from_user(document: Mapping[str, Any], job_id: str, defaults: Defaults) -> Job:
    """Return the new job that a user's document describes; ``job_id`` where it has no id.

    Raises: BadDocument (or BadId) that names the key that a user may not choose or that is wrong.
    """
    for key in document:
        if key not in _CHOOSABLE and not (key.startswith(OWN_PREFIX) and key != OWN_PREFIX):
            raise _unknown_key(key, document)
    job = job_from_document(document, job_id, defaults)
    check_command(job.command)
    if (
        job.extra
        and (size := len(_to_json(dict(job.extra)).encode(errors="surrogatepass"))) > MAX_OWN_BYTES
    ):
        raise BadDocument(
            f"the keys that begin with {OWN_PREFIX} have {size} bytes; {MAX_OWN_BYTES} is the most:"
            " put what they hold into a file, and name that"
        )
    _check_size("'cwd' has", (job.cwd,), MAX_PATH_BYTES)
    _check_size(
        "'env' has", (f"{name}={value}" for name, value in job.env.items()), MAX_ENVIRONMENT_BYTES
    )
    return job


_CHOOSABLE = frozenset({*USER_KEYS, "schema"})


def _unknown_key(key: str, document: Mapping[str, Any]) -> BadDocument:
    if key == "unreadable" and "command" not in document:
        return BadDocument(
            f"this job could not be read where it was listed: {shorten(document[key])}"
        )
    from difflib import get_close_matches

    near = get_close_matches(key.lower(), USER_KEYS, 1, 0.7)
    hint = f"did you mean {near[0]!r}? Those" if near else "those"
    return BadDocument(
        f"{shorten(key)} is not a key that can be chosen; {hint} are {', '.join(USER_KEYS)}, and"
        f" any of your own that begins with {OWN_PREFIX}"
    )


def _check_size(what: str, texts: Iterable[str], most: int) -> None:
    size = sum(len(text.encode("utf-8", "surrogateescape")) + 1 for text in texts)
    if size > most:
        raise BadDocument(f"{what} {size} bytes; {most} is the most that the kernel takes")


def job_from_document(document: Mapping[str, Any], job_id: str, defaults: Defaults) -> Job:
    """Return the job that a document of the store holds.

    ``job_id`` is taken where the document names none. Keys that are not known are kept.
    Raises: BadDocument that names the key; NewerSchema where a newer version wrote it.
    """
    read = _Reader(document)
    schema = read.integer("schema", SCHEMA, 1, 2**53)
    if schema > SCHEMA:
        raise NewerSchema(
            f"the document of job {job_id} has schema {schema}, and this version of queuectl knows"
            f" {SCHEMA}: upgrade queuectl"
        )
    identity = read.take("id", str, "a string", job_id)
    state = read.take("state", str, "a state", State.PENDING)
    if state not in _STATES:
        read.fail("state", state, "one of " + ", ".join(State))
    return Job(
        id=job_id if identity is job_id else check_id(identity),
        command=read.text("command", None),
        state=State(state),
        priority=read.integer("priority", defaults.priority, 0, MAX_PRIORITY),
        attempts=read.integer("attempts", 0, 0, 2**53),
        max_retries=read.integer("max_retries", defaults.max_retries, 0, MAX_MAX_RETRIES),
        timeout_seconds=read.seconds("timeout", defaults.timeout_seconds),
        retry_on=read.codes("retry_on", defaults.retry_on),
        no_retry_on=read.codes("no_retry_on", defaults.no_retry_on),
        cwd=read.path("cwd", defaults.cwd),
        env=read.env(NOTHING),
        after=read.ids("after"),
        after_any=read.ids("after_any"),
        created_at=read.instant("created_at", defaults.now),
        updated_at=read.instant("updated_at", defaults.now),
        run_at=read.instant("run_at", defaults.now),
        history=tuple(
            _attempt_from(entry, index)
            for index, entry in enumerate(read.take("history", list, "a list of attempts", ()), 1)
        ),
        history_omitted=read.integer("history_omitted", 0, 0, MAX_ATTEMPT),
        extra=read.rest,
    )


def _attempt_from(document: object, index: int) -> Attempt:
    what = f"'history', attempt {index}: "
    if not isinstance(document, dict):
        raise BadDocument(f"{what}{shorten(document)} is not an object")
    read = _Reader(document, what)
    outcome = read.take("outcome", str, "an outcome", None)
    if outcome not in _OUTCOMES:
        read.fail("outcome", outcome, "one of " + ", ".join(Outcome))
    number = read.integer("number", index, 1, MAX_ATTEMPT)
    started_at = read.instant("started_at", None)
    return Attempt(
        number=number,
        worker=read.text("worker", ""),
        started_at=started_at,
        finished_at=read.instant("finished_at", started_at),
        duration_seconds=read.duration("duration"),
        exit_code=read.number("exit_code", 0, 255),
        signal=read.number("signal", 1, 127),
        outcome=Outcome(outcome),
        log=read.text("log", ""),
        extra=read.rest,
    )


# --- writing ------------------------------------------------------------------------------------

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_quote = json.encoder.encode_basestring


def _number(value: float | None) -> str:
    return "null" if value is None else repr(value)


def _codes(key: str, codes: str | None) -> str:
    # Only where there is such a rule, as in the documents of the first release.
    return f'  "{key}": {_quote(codes)},\n' if codes else ""


def _attempt_text(attempt: Attempt) -> str:
    text = (
        f'    {{"number": {attempt.number}, "worker": {_quote(attempt.worker)}, '
        f'"started_at": "{format_instant(attempt.started_at)}", '
        f'"finished_at": "{format_instant(attempt.finished_at)}", '
        f'"duration": {_number(attempt.duration_seconds)}, '
        f'"exit_code": {_number(attempt.exit_code)}, "signal": {_number(attempt.signal)}, '
        f'"outcome": "{attempt.outcome}", "log": {_quote(attempt.log)}'
    )
    for key, value in attempt.extra.items():
        text += f", {_quote(key)}: {_to_json(value)}"
    return text + "}"


def encode_job(job: Job) -> bytes:
    """Return a job's document: one key a line, one attempt a line, UTF-8, a newline at the end.

    Written out, since it is done for each job that ends and the encoder of ``json`` takes four
    times as long for it.
    Raises: BadDocument where it would be longer than what is read.
    """
    env = _to_json(dict(job.env)) if job.env else "{}"
    after = _to_json(job.after) if job.after else "[]"
    after_any = _to_json(job.after_any) if job.after_any else "[]"
    attempts = ",\n".join(map(_attempt_text, job.history))
    history = f"[\n{attempts}\n  ]" if attempts else "[]"
    text = (
        f'{{\n  "schema": {SCHEMA},\n'
        f'  "id": {_quote(job.id)},\n'
        f'  "command": {_quote(job.command)},\n'
        f'  "state": "{job.state}",\n'
        f'  "priority": {job.priority},\n'
        f'  "attempts": {job.attempts},\n'
        f'  "max_retries": {job.max_retries},\n'
        f'  "timeout": {_number(job.timeout_seconds)},\n'
        f"{_codes('retry_on', job.retry_on)}{_codes('no_retry_on', job.no_retry_on)}"
        f'  "cwd": {_quote(job.cwd)},\n'
        f'  "env": {env},\n'
        f'  "after": {after},\n'
        f'  "after_any": {after_any},\n'
        f'  "created_at": "{format_instant(job.created_at)}",\n'
        f'  "updated_at": "{format_instant(job.updated_at)}",\n'
        f'  "run_at": "{format_instant(job.run_at)}",\n'
        f'  "history": {history}'
    )
    if job.history_omitted:
        text += f',\n  "history_omitted": {job.history_omitted}'
    for key, value in job.extra.items():
        text += f",\n  {_quote(key)}: {_to_json(value)}"
    text += "\n}\n"
    try:
        data = text.encode()
    except UnicodeEncodeError:
        # A byte of a file name that is no UTF-8 is held as a lone surrogate: JSON's \u escape
        # carries it there and back.
        data = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()
    if len(data) > MAX_DOCUMENT_BYTES:
        raise BadDocument(_too_long(job.id, len(data), MAX_DOCUMENT_BYTES))
    return data


def encode_job_to_run(job: Job) -> bytes:
    """Return a job's document, which has room for the attempts that come. Raises: BadDocument."""
    data = encode_job(job)
    if len(data) > MAX_DOCUMENT_BYTES_TO_RUN:
        raise BadDocument(_too_long(job.id, len(data), MAX_DOCUMENT_BYTES_TO_RUN))
    return data


def _too_long(job_id: str, size: int, most: int) -> str:
    return f"the document of job {job_id} would be written with {size} bytes; {most} is the most"


def job_document(job: Job) -> dict[str, Any]:
    """Return the JSON object of a job, in the order of its keys."""
    document: dict[str, Any] = json.loads(encode_job(job))
    return document
