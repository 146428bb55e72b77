"""New jobs of what a user wrote: a shell command, words, a document, or a batch of lines.

Nothing here reads or writes: what is wrong is found before a store is touched.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from queuectl.clock import format_instant, later
from queuectl.codes import NO_RULE
from queuectl.config import Defaults, Settings
from queuectl.document import check_text, job_document, job_from_document
from queuectl.errors import BadDocument, QueuectlError, UsageError, shorten
from queuectl.job import (
    FINISHED,
    MAX_COMMAND_BYTES,
    MAX_ENVIRONMENT_BYTES,
    MAX_PATH_BYTES,
    Job,
    State,
    new_id,
)
from queuectl.strict_json import parse_object, to_json

if TYPE_CHECKING:
    from queuectl.packed import Packed

USER_KEYS = (
    "id", "command", "priority", "max_retries", "timeout", "retry_on", "no_retry_on", "cwd", "env",
    "after", "after_any", "run_at",
)  # fmt: skip
# What is recorded of a job as it runs: a new one has none of it.
RECORDED_KEYS = frozenset({
    "state", "attempts", "created_at", "updated_at", "history", "history_omitted",
})  # fmt: skip
OWN_PREFIX = "x_"  # a producer's own keys begin with it
MAX_OWN_BYTES = 1024 * 1024
_CHOOSABLE = frozenset({*USER_KEYS, "schema"})
_OPTION_KEYS = (
    "id", "priority", "max_retries", "timeout", "cwd", "retry_on", "no_retry_on", "after",
    "after_any",
)  # fmt: skip
_NOT_BLOCKED = (State.PENDING, State.PROCESSING, *FINISHED)


class Options(NamedTuple):
    """What the command line says of every job, None: nothing; ``here`` is where others run."""

    here: str
    id: str | None = None
    priority: int | None = None
    delay_seconds: float | None = None
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout_seconds: float | None = None
    cwd: str | None = None
    env: Mapping[str, str] = MappingProxyType({})
    retry_on: str | None = None
    no_retry_on: str | None = None
    after: Sequence[str] = ()
    after_any: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """Return the options as keys of a job's document, all but ``run_at``."""
        values = {**self._asdict(), "timeout": self.timeout_seconds}
        values |= {"after": list(self.after), "after_any": list(self.after_any)}
        return {key: values[key] for key in _OPTION_KEYS if values[key] not in (None, [])}


class Submitter:
    """Makes jobs of texts; each is due after the one before it.

    ``jobs`` are those made so far; ``chosen`` maps each id that a person chose to its line, and
    ``dependent`` the id of each job that waits for others.

    A printed document holds more than a new job takes: ``ignored`` are the keys that were left out,
    ``ended`` counts the jobs that had ended, and ``waited_for`` has the parents of jobs that had
    stopped waiting.
    """

    def __init__(self, options: Options, settings: Settings, now: datetime) -> None:
        self.jobs: list[Job] | Packed[Job] = []
        self.chosen: dict[str, int] = {}
        self.dependent: dict[str, int] = {}
        self.ignored: dict[str, None] = {}
        self.ended = 0
        self.waited_for: set[str] = set()
        self._waited: set[str] = set()
        self._bare: Job | None = None  # the last job of a command alone
        self._options = options
        self._given = options.document()
        self._now = now
        self._base = options.run_at or later(now, options.delay_seconds or 0)
        self._defaults = Defaults(settings, options.here, now)

    def one(self, words: Sequence[str]) -> None:
        """Make the job of a document, or a command. Raises: UsageError, BadDocument, BadId."""
        if len(words) > 1:
            if any(begins_like_object(word) for word in words):
                raise UsageError(
                    "a job document must be the only argument; use --batch for several"
                )
            import shlex

            words = [shlex.join(words)]  # each stays one word
        text = words[0] if words else ""
        if not text.strip():
            raise UsageError("the command is empty")
        self._append(_document(text), 1)

    def forgotten(self, known: Collection[str]) -> Collection[Job]:
        """Return the jobs; ones that had stopped waiting do not wait for what has been purged."""
        from queuectl.packed import Packed
        from queuectl.policy import without_missing_parents

        known = {*known, *self.chosen}
        return Packed(
            without_missing_parents(job, known) if job.id in self._waited else job
            for job in self.jobs
        )

    def batch(self, lines: Iterable[bytes]) -> None:
        """Make the jobs of a batch. Raises: UsageError, BadDocument or BadId, naming the line."""
        from queuectl.batch import job_texts
        from queuectl.packed import Packed

        self.jobs = Packed()
        for line, text, is_json in job_texts(lines):
            try:
                self._append(_object(text) if is_json else _document(text), line)
            except QueuectlError as error:
                error.args = (f"line {line}: {error}",)
                raise

    def _append(self, document: dict[str, Any], line: int) -> None:
        state = document.get("state")
        if records := document.keys() & RECORDED_KEYS:  # as in a printed document
            self.ignored.update(dict.fromkeys(key for key in document if key in records))
            self.ended += state in FINISHED
            document = {key: value for key, value in document.items() if key not in records}
        # A microsecond each keeps the jobs in order, and the ids that are made for them apart.
        position = len(self.jobs) / 1_000_000
        job = self._job(document, new_id(later(self._now, position)), later(self._base, position))
        if "id" in document or self._options.id is not None:
            first = self.chosen.setdefault(job.id, line)
            if first != line:
                raise BadDocument(f"duplicate id {job.id!r} (first on line {first})")
        if job.after or job.after_any:
            self.dependent[job.id] = line
            if state in _NOT_BLOCKED:
                self._waited.add(job.id)
                self.waited_for.update(job.parents)
        self.jobs.append(job)

    def _job(self, document: dict[str, Any], made_id: str, due_at: datetime) -> Job:
        is_bare = document.keys() == {"command"} and self._options.id is None
        if is_bare and self._bare is not None and isinstance(document["command"], str):
            # Most lines of a batch are a command alone: this takes a third of the time.
            with suppress(BadDocument):  # reported below
                command = check_command(document["command"])
                return self._bare._replace(id=made_id, command=command, run_at=due_at)
        # A printed document without a rule had none; the settings must not give it one.
        no_rules = NO_RULE if "schema" in document else {}
        merged = {"run_at": format_instant(due_at), **no_rules, **self._given, **document}
        env = document.get("env", {})
        if isinstance(env, dict):  # anything else is reported with the rest of what is wrong
            merged["env"] = {**self._options.env, **env}
        job = job_from_user(merged, made_id, self._defaults)
        self._check_agreement(document, job)
        if is_bare:
            self._bare = job
        return job

    def _check_agreement(self, document: dict[str, Any], job: Job) -> None:
        """Raise UsageError if an option and a key of the document say different things."""
        options = self._options
        both = [key for key in self._given if key in document]
        taken = NO_RULE | job_document(job) if both else {}
        conflicts = [
            "--" + key.replace("_", "-")
            for key in both
            if not _is_same(taken[key], self._given[key])
        ]
        if "run_at" in document and options.delay_seconds is not None:
            conflicts.append("--delay")
        if "run_at" in document and options.run_at not in (None, job.run_at):
            conflicts.append("--run-at")
        conflicts += [
            f"--env {name}" for name, value in options.env.items() if job.env[name] != value
        ]
        if conflicts:
            of = f" of {job.id!r}" if "id" in document else ""
            raise UsageError(
                f"{conflicts[0]} conflicts with the job document{of}; specify it only once"
            )


def _is_same(one: Any, other: Any) -> bool:
    return set(one) == set(other) if isinstance(one, list) else bool(one == other)


def _document(text: str) -> dict[str, Any]:
    """Return the document that a text holds, or that of a job whose command it is."""
    if begins_like_object(text):
        return _object(text)
    if text.lstrip().startswith("["):
        from queuectl.batch import is_array

        if is_array(text):
            raise BadDocument("a JSON array is no job; give one object, or the array to --batch")
    return {"command": text}


def _object(text: str) -> dict[str, Any]:
    # As bytes, so that bytes that are not UTF-8 are refused.
    return parse_object(text.encode("utf-8", "surrogateescape"))


def begins_like_object(text: str) -> bool:
    """Return whether a text is meant as a JSON object, and not as a command."""
    text = text.lstrip()
    return text.startswith("{") and text[1:].lstrip().startswith(('"', "}"))


def job_from_user(document: Mapping[str, Any], job_id: str, defaults: Defaults) -> Job:
    """Return the new job of a user's document. Raises: BadDocument, BadId."""
    for key in document:
        if key not in _CHOOSABLE and not (key.startswith(OWN_PREFIX) and key != OWN_PREFIX):
            raise _unknown_key(key, document)
    job = job_from_document(document, job_id, defaults)
    check_command(job.command)
    own = to_json(dict(job.extra)) if job.extra else ""
    if (size := len(own.encode(errors="surrogatepass"))) > MAX_OWN_BYTES:
        raise BadDocument(
            f"the keys that begin with {OWN_PREFIX} have {size} bytes; {MAX_OWN_BYTES} is the most:"
            " put what they hold into a file, and name that"
        )
    # The end of each takes a byte, too.
    check_text(f"{job.cwd} ", "'cwd'", MAX_PATH_BYTES)
    variables = "".join(f"{name}={value} " for name, value in job.env.items())
    check_text(variables, "'env'", MAX_ENVIRONMENT_BYTES)
    return job


def _unknown_key(key: str, document: Mapping[str, Any]) -> BadDocument:
    if key == "unreadable" and "command" not in document:
        return BadDocument(
            f"this job could not be read when it was listed: {shorten(document[key])}"
        )
    from difflib import get_close_matches

    near = get_close_matches(key.lower(), USER_KEYS, 1, 0.7)
    hint = f"did you mean {near[0]!r}? Those" if near else "those"
    return BadDocument(
        f"{shorten(key)} is not a key that can be chosen; {hint} are {', '.join(USER_KEYS)}, and"
        f" any of your own that begins with {OWN_PREFIX}"
    )


def check_command(text: str) -> str:
    """Return a command that the shell can be given. Raises: BadDocument."""
    if not text.strip():
        raise BadDocument("the command is empty")
    return check_text(text, "the command", MAX_COMMAND_BYTES, ": put it into a script")
