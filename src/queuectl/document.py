"""The JSON document that holds a job: reading, checking and writing it.

A document is one JSON object with a stable key order, one key a line and one attempt a line, so
that ``cat`` and ``diff`` serve. Keys that this version does not know are kept.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from queuectl.clock import MAX_DURATION_SECONDS, format_instant, parse_instant
from queuectl.codes import NO_RULE, check_codes
from queuectl.config import Defaults
from queuectl.errors import BadDocument, ConfigError, UsageError, shorten
from queuectl.job import (
    MAX_ATTEMPT,
    MAX_COMMAND_BYTES,
    MAX_MAX_RETRIES,
    MAX_PRIORITY,
    NOTHING,
    Attempt,
    Job,
    Outcome,
    State,
    check_id,
    is_id,
    outcome_from,
)
from queuectl.strict_json import to_json

SCHEMA = 1
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
# The limit for a job that is going to run, so that it can be read again with its attempts.
MAX_DOCUMENT_BYTES_TO_RUN = MAX_DOCUMENT_BYTES - 1024 * 1024
MAX_COUNT = 2**53  # a double holds each whole number up to it

_SURROGATE = re.compile("[\ud800-\udfff]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_STATES = {state.value: state for state in State}
_REQUIRED: Any = object()  # the default of a key that has none


class NewerSchema(ConfigError):
    """A document that a newer version of queuectl wrote; it is left as it is."""


# --- reading ------------------------------------------------------------------------------------


_parse_once = lru_cache(maxsize=1024)(parse_instant)


class _Reader:
    """Takes typed values out of a document; ``rest`` is what the schema does not know."""

    def __init__(self, document: Mapping[str, Any], what: str = "") -> None:
        self.rest = dict(document)
        self.what = what

    def fail(self, key: str, value: object, expected: str) -> NoReturn:
        raise BadDocument(f"{self.what}{key!r} is {shorten(value)}; it must be {expected}")

    def take(self, key: str, default: Any, kind: type, expected: str) -> Any:
        value = self.rest.pop(key, default)
        if value is _REQUIRED:
            raise BadDocument(f"{self.what}{key!r} is missing")
        # The very type: true is an int in Python, but not a number in JSON.
        if value is not default and type(value) is not kind:
            self.fail(key, value, expected)
        return value

    def text(self, key: str, default: str = _REQUIRED) -> str:
        value: str = self.take(key, default, str, "a string")
        if value.isascii() and "\0" not in value:
            return value  # as nearly all
        return check_text(value, f"{self.what}{key!r}")

    def path(self, key: str, default: str) -> str:
        value = self.text(key, default)
        if not value.startswith("/"):
            self.fail(key, value, "an absolute path")
        return value

    def state(self) -> State:
        value = self.take("state", "pending", str, "a state")
        if value not in _STATES:
            self.fail("state", value, "one of " + ", ".join(_STATES))
        return _STATES[value]

    def outcome(self) -> Outcome | str:
        value: str = self.take("outcome", "", str, "an outcome")
        try:
            return outcome_from(value)
        except ValueError:
            self.fail("outcome", value, "one of " + ", ".join(Outcome))

    def whole(self, key: str, default: int | None, least: int, most: int) -> Any:
        value = self.rest.pop(key, default)
        if value is not default and (type(value) is not int or not least <= value <= most):
            null = "null or " if default is None else ""
            self.fail(key, value, f"{null}a whole number from {least} to {most}")
        return value

    def seconds(self, key: str, default: float | None, *, zero: bool = False) -> float | None:
        value: float | None = self.rest.pop(key, default)
        if value is None or value is default:
            return value
        is_number = type(value) in (int, float)
        if not is_number or not 0 <= value <= MAX_DURATION_SECONDS or (value == 0 and not zero):
            bounds = "from 0 to" if zero else "above 0 and up to"
            self.fail(key, value, f"null or a number of seconds, {bounds} 100 years")
        return float(value)

    def instant(self, key: str, default: datetime = _REQUIRED) -> datetime:
        value = self.take(key, default, str, "an instant in ISO 8601")
        try:
            # Those of one document are often the same; without an offset it is local time.
            is_usual = value is not default and len(value) < 32 and value.endswith("Z")
            parse = _parse_once if is_usual else parse_instant
            return default if value is default else parse(value)
        except UsageError as error:
            raise BadDocument(f"{self.what}{key!r}: {error}") from error

    def codes(self, key: str, default: str | None) -> str | None:
        value: str | None = self.rest.pop(key, default)
        if value is None or value is default:
            return value
        try:  # what is no text is refused as an empty one is
            checked = check_codes(value if type(value) is str else "", key)
        except UsageError:
            self.fail(key, value, "null or a string of exit codes from 1 to 255, such as '1,64-78'")
        return None if checked == NO_RULE[key] else checked

    def ids(self, key: str) -> tuple[str, ...]:
        values = self.take(key, (), list, "a list of ids")
        if not values:
            return ()
        for value in values:
            if type(value) is not str or not is_id(value):
                self.fail(key, value, "a list of ids")
        return tuple(dict.fromkeys(values))

    def env(self) -> Mapping[str, str]:
        values: Mapping[str, str] = self.take("env", NOTHING, dict, "an object of strings")
        for name, value in values.items():
            check_env(name, value)
        return values


def check_text(text: str, what: str, most: int | None = None, hint: str = "") -> str:
    """Return text that the kernel can be given. Raises: BadDocument, also above ``most`` bytes."""
    if "\0" in text:
        raise BadDocument(f"{what} holds a NUL character, which no command can be given")
    try:
        size = len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise BadDocument(
            f"{what} holds a lone surrogate at character {error.start}, which is no text"
        ) from error
    if most is not None and size > most:
        raise BadDocument(
            f"{what} has {size} bytes; {most} is the most that the kernel takes{hint}"
        )
    return text


def check_env(name: object, value: object) -> None:
    """Raise BadDocument unless a variable of the environment has a valid name and value."""
    if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
        raise BadDocument(f"{shorten(name)} is not the name of an environment variable")
    what = f"'env': {name[:60]}"
    if not isinstance(value, str):
        raise BadDocument(f"{what} is {shorten(value)}; it must be a string")
    check_text(value, what, MAX_COMMAND_BYTES - len(name) - 1)


def job_from_document(document: Mapping[str, Any], job_id: str, defaults: Defaults) -> Job:
    """Return the job of a document, which may have no id. Raises: BadDocument, NewerSchema."""
    read, settings = _Reader(document), defaults.settings
    schema = read.whole("schema", SCHEMA, 1, MAX_COUNT)
    if schema > SCHEMA:
        raise NewerSchema(
            f"the document of job {job_id} has schema {schema}, and this version of queuectl knows"
            f" {SCHEMA}: upgrade queuectl"
        )
    identity = read.take("id", job_id, str, "a string")
    return Job(
        id=job_id if identity is job_id else check_id(identity),
        command=read.text("command"),
        state=read.state(),
        priority=read.whole("priority", settings.priority, 0, MAX_PRIORITY),
        attempts=read.whole("attempts", 0, 0, MAX_COUNT),
        max_retries=read.whole("max_retries", settings.max_retries, 0, MAX_MAX_RETRIES),
        timeout_seconds=read.seconds("timeout", settings.timeout),
        retry_on=read.codes("retry_on", settings.retry_on),
        no_retry_on=read.codes("no_retry_on", settings.no_retry_on),
        cwd=read.path("cwd", defaults.cwd),
        env=read.env(),
        after=read.ids("after"),
        after_any=read.ids("after_any"),
        created_at=read.instant("created_at", defaults.now),
        updated_at=read.instant("updated_at", defaults.now),
        run_at=read.instant("run_at", defaults.now),
        history=tuple(
            _attempt_from(entry, index)
            for index, entry in enumerate(read.take("history", (), list, "a list of attempts"), 1)
        ),
        history_omitted=read.whole("history_omitted", 0, 0, MAX_ATTEMPT),
        extra=read.rest,
    )


def _attempt_from(document: object, index: int) -> Attempt:
    what = f"'history', attempt {index}: "
    if not isinstance(document, dict):
        raise BadDocument(f"{what}{shorten(document)} is not an object")
    read = _Reader(document, what)
    started_at = read.instant("started_at")
    return Attempt(
        number=read.whole("number", index, 1, MAX_ATTEMPT),
        worker=read.text("worker", ""),
        started_at=started_at,
        finished_at=read.instant("finished_at", started_at),
        duration_seconds=read.seconds("duration", None, zero=True),
        exit_code=read.whole("exit_code", None, 0, 255),
        signal=read.whole("signal", None, 1, 127),
        outcome=read.outcome(),
        log=read.text("log", ""),
        extra=read.rest,
    )


# --- writing ------------------------------------------------------------------------------------

_quote = json.encoder.encode_basestring


def _number(value: float | None) -> str:
    return "null" if value is None else repr(value)


def _codes(key: str, codes: str | None) -> str:
    # Only if there is such a rule, as in the documents of the first release.
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
        text += f", {_quote(key)}: {to_json(value)}"
    return text + "}"


def encode_job(job: Job, most: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Return a job's document. Raises: BadDocument if it would be too long to be read again."""
    # Written out: this is done for each job that ends, and json takes four times as long.
    env = to_json(dict(job.env)) if job.env else "{}"
    after = to_json(job.after) if job.after else "[]"
    after_any = to_json(job.after_any) if job.after_any else "[]"
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
        text += f",\n  {_quote(key)}: {to_json(value)}"
    text += "\n}\n"
    try:
        data = text.encode()
    except UnicodeEncodeError:
        # A byte of a file name that is not UTF-8 is a lone surrogate here, and a \u escape there.
        data = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()
    if len(data) > most:
        raise BadDocument(
            f"the document of job {job.id} would be written with {len(data)} bytes; {most} is the"
            " most"
        )
    return data


def encode_job_to_run(job: Job) -> bytes:
    """Return a job's document, with room for attempts to come. Raises: BadDocument."""
    return encode_job(job, MAX_DOCUMENT_BYTES_TO_RUN)


def job_document(job: Job) -> dict[str, Any]:
    """Return the JSON object of a job, in the order of its keys."""
    document: dict[str, Any] = json.loads(encode_job(job))
    return document
