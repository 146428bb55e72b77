"""Turn what a user wrote (a shell command, words, a document, a batch of lines) into new jobs.

Nothing here reads or writes: what is wrong is found before a store is touched.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from queuectl.clock import format_instant, later
from queuectl.codes import NO_RULE
from queuectl.config import Settings
from queuectl.errors import BadDocument, QueuectlError, UsageError
from queuectl.job import (
    MAX_DOCUMENT_BYTES,
    Job,
    job_from_user,
    new_id,
    parse_object,
)

if TYPE_CHECKING:
    from queuectl.packed import Packed

_UTF8_BOM = b"\xef\xbb\xbf"


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
    """

    def __init__(self, options: Options, settings: Settings, now: datetime) -> None:
        self.jobs: list[Job] | Packed[Job] = []
        self.chosen: dict[str, int] = {}
        self.dependent: dict[str, int] = {}
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
            if any(_begins_like_object(word) for word in words):
                raise UsageError(
                    "a job document must be the only argument; use --batch for several"
                )
            import shlex

            words = [shlex.join(words)]
        text = words[0] if words else ""
        if not text.strip():
            raise UsageError("the command is empty")
        self._append(text, 1)

    def batch(self, lines: Iterable[bytes]) -> None:
        """Make the jobs of a batch, one for each line that is not blank.

        Raises: UsageError, BadDocument or BadId that names the line.
        """
        from queuectl.packed import Packed

        self.jobs = Packed()
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_DOCUMENT_BYTES:
                raise BadDocument(f"line {number}: more than {MAX_DOCUMENT_BYTES} bytes")
            if number == 1:
                line = line.removeprefix(_UTF8_BOM)  # noqa: PLW2901  (some editors write it)
            # A byte that is no UTF-8 reaches the shell as it is.
            text = line.decode("utf-8", "surrogateescape").strip(" \t\r\n")
            if not text:
                continue
            try:
                self._append(text, number)
            except QueuectlError as error:
                error.args = (f"line {number}: {error}",)
                raise

    def _append(self, text: str, line: int) -> None:
        document = _document(text)
        # A microsecond each keeps the jobs in order, and the ids that are made for them apart.
        position = len(self.jobs) / 1_000_000
        job = self._job(document, new_id(later(self._now, position)), later(self._base, position))
        if "id" in document or self._options.id is not None:
            first = self.chosen.setdefault(job.id, line)
            if first != line:
                raise BadDocument(f"job {job.id!r} stands on line {first} already")
        if job.after or job.after_any:
            self.dependent[job.id] = line
        self.jobs.append(job)

    def _job(self, document: dict[str, Any], made_id: str, due_at: datetime) -> Job:
        merged = {
            "run_at": format_instant(due_at),
            "after": list(self._options.after),
            "after_any": list(self._options.after_any),
            **self._given,
            **document,
        }
        env = document.get("env", {})
        if isinstance(env, dict):  # anything else is reported with the rest of what is wrong
            merged["env"] = {**self._options.env, **env}
        job = job_from_user(merged, made_id, self._defaults)
        self._check_agreement(document, job)
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
            raise UsageError(
                f"{disagree[0]} and the document of job {job.id!r} disagree; give it in one place"
            )


def _document(text: str) -> dict[str, Any]:
    """Return the document that a text is, or that of a job whose command it is."""
    if _begins_like_object(text):
        # As bytes, so that those that are no UTF-8 are refused: a document is JSON, and that is.
        return parse_object(text.encode("utf-8", "surrogateescape"))
    if text.lstrip().startswith("[") and _is_array(text):
        raise BadDocument(
            "a JSON array is no job; give one object, or a batch with one object a line"
        )
    return {"command": text}


def _begins_like_object(text: str) -> bool:
    text = text.lstrip()
    return text.startswith("{") and text[1:].lstrip().startswith(('"', "}"))


def _is_array(text: str) -> bool:
    # `[ -f x ] && y` is a command of the shell, and `[{"id": ...` is an array even where it is bad.
    if text.lstrip()[1:].lstrip().startswith('{"'):
        return True
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
