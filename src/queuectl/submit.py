"""Turn what a user wrote (a shell command, words, a document, a batch of lines) into new jobs.

Nothing here reads or writes: what is wrong is found before a store is touched.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from queuectl.clock import format_instant, later
from queuectl.codes import NO_RULE
from queuectl.config import Settings
from queuectl.document import RECORDED_KEYS, check_command, job_from_user, parse_object
from queuectl.errors import BadDocument, QueuectlError, UsageError
from queuectl.job import FINISHED, Job, State, new_id

if TYPE_CHECKING:
    from queuectl.packed import Packed

_NOT_BLOCKED = (State.PENDING, State.PROCESSING, *FINISHED)


class Options(NamedTuple):
    """Hold what the command line says of every job that it adds; None where it says nothing.

    ``here`` is the directory of a job that names none.
    """

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


class Submitter:
    """Make jobs of texts, each after the one before it in the order in which they will run.

    ``jobs`` are those made so far; ``chosen`` has the ids that a person chose, each with its line,
    and ``dependent`` those that wait for others.

    A document that was printed tells more than a new job takes: ``ignored`` are the keys of that,
    ``ended`` counts the jobs that had ended, and ``waited_for`` has the parents of those that did
    not wait any more.
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
        self._now = now
        self._base = options.run_at or later(now, options.delay_seconds or 0)
        self._defaults = settings.of_a_new_job(options.here, now)
        self._given = {
            key: value
            for key, value in (
                ("id", options.id),
                ("priority", options.priority),
                ("max_retries", options.max_retries),
                ("timeout", options.timeout_seconds),
                ("cwd", options.cwd),
                ("retry_on", options.retry_on),
                ("no_retry_on", options.no_retry_on),
            )
            if value is not None
        }

    def one(self, words: Sequence[str]) -> None:
        """Make the job that the words of a command line are.

        A single word is a document or a string for the shell; several are quoted for the shell, so
        that each stays one word. Raises: UsageError, BadDocument, BadId.
        """
        if len(words) > 1:
            if any(begins_like_object(word) for word in words):
                raise UsageError(
                    "a job document must be the only argument; use --batch for several"
                )
            import shlex

            words = [shlex.join(words)]
        text = words[0] if words else ""
        if not text.strip():
            raise UsageError("the command is empty")
        self._append(_document(text), 1)

    def forgotten(self, known: Collection[str]) -> Collection[Job]:
        """Return the jobs without the parents that nobody knows and that they waited for already.

        Those may have been purged since, and are not waited for a second time.
        """
        from queuectl.packed import Packed

        known = {*known, *self.chosen}
        return Packed(
            _without_parents(job, known) if job.id in self._waited else job for job in self.jobs
        )

    def batch(self, lines: Iterable[bytes]) -> None:
        """Make the jobs of a batch: of each line, and each object of JSON that spans lines.

        Raises: UsageError, BadDocument or BadId that names the line.
        """
        from queuectl.lines import job_texts
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
        document = self._without_records(document)
        # A microsecond each keeps the jobs in order, and the ids that are made for them apart.
        position = len(self.jobs) / 1_000_000
        job = self._job(document, new_id(later(self._now, position)), later(self._base, position))
        if "id" in document or self._options.id is not None:
            first = self.chosen.setdefault(job.id, line)
            if first != line:
                raise BadDocument(f"job {job.id!r} stands on line {first} already")
        if job.after or job.after_any:
            self.dependent[job.id] = line
            if state in _NOT_BLOCKED:
                self._waited.add(job.id)
                self.waited_for.update(job.parents)
        self.jobs.append(job)

    def _without_records(self, document: dict[str, Any]) -> dict[str, Any]:
        """Leave out of a document that was printed what its job has recorded."""
        records = document.keys() & RECORDED_KEYS
        if not records:
            return document
        self.ignored.update(dict.fromkeys(key for key in document if key in records))
        self.ended += document.get("state") in FINISHED
        return {key: value for key, value in document.items() if key not in records}

    def _job(self, document: dict[str, Any], made_id: str, due_at: datetime) -> Job:
        is_bare = document.keys() == {"command"} and self._options.id is None
        if is_bare and self._bare is not None and isinstance(document["command"], str):
            # Most lines of a batch are a command alone: this saves half of the time that they take.
            with suppress(BadDocument):  # what is wrong is said below
                command = check_command(document["command"])
                return self._bare._replace(id=made_id, command=command, run_at=due_at)
        # Where there is no rule none is printed, and the settings are not to make one.
        no_rules = NO_RULE if "schema" in document else {}
        merged = {
            "run_at": format_instant(due_at),
            "after": list(self._options.after),
            "after_any": list(self._options.after_any),
            **no_rules,
            **self._given,
            **document,
        }
        env = document.get("env", {})
        if isinstance(env, dict):  # anything else is reported with the rest of what is wrong
            merged["env"] = {**self._options.env, **env}
        job = job_from_user(merged, made_id, self._defaults)
        self._check_agreement(document, job)
        if is_bare:
            self._bare = job
        return job

    def _check_agreement(self, document: dict[str, Any], job: Job) -> None:
        """Raise UsageError where an option and a key of the document say different things."""
        # The job took its values from the document where that has them, and else from the options.
        values = {
            "id": job.id,
            "priority": job.priority,
            "max_retries": job.max_retries,
            "timeout": job.timeout_seconds,
            "cwd": job.cwd,
            "retry_on": job.retry_on or NO_RULE["retry_on"],
            "no_retry_on": job.no_retry_on or NO_RULE["no_retry_on"],
        }
        disagree = [
            "--" + key.replace("_", "-")
            for key, value in self._given.items()
            if values[key] != value
        ]
        if "run_at" in document:
            if self._options.delay_seconds is not None:
                disagree.append("--delay")
            if self._options.run_at not in (None, job.run_at):
                disagree.append("--run-at")
        for option, given, ids in (
            ("--after", self._options.after, job.after),
            ("--after-any", self._options.after_any, job.after_any),
        ):
            if given and set(given) != set(ids):
                disagree.append(option)
        disagree += [
            f"--env {name}" for name, value in self._options.env.items() if job.env[name] != value
        ]
        if disagree:
            of = f" of job {job.id!r}" if "id" in document else ""
            raise UsageError(f"{disagree[0]} and the document{of} disagree; give it in one place")


def _without_parents(job: Job, known: Collection[str]) -> Job:
    return job._replace(
        after=tuple(each for each in job.after if each in known),
        after_any=tuple(each for each in job.after_any if each in known),
    )


def _document(text: str) -> dict[str, Any]:
    """Return the document that a text is, or that of a job whose command it is."""
    if begins_like_object(text):
        return _object(text)
    if text.lstrip().startswith("["):
        from queuectl.lines import is_array

        if is_array(text):
            raise BadDocument("a JSON array is no job; give one object, or the array to --batch")
    return {"command": text}


def _object(text: str) -> dict[str, Any]:
    # As bytes, so that those that are no UTF-8 are refused: a document is JSON, and that is.
    return parse_object(text.encode("utf-8", "surrogateescape"))


def begins_like_object(text: str) -> bool:
    """Return whether a text is meant to be a JSON object, and no command."""
    text = text.lstrip()
    return text.startswith("{") and text[1:].lstrip().startswith(('"', "}"))
