"""Say what each file of a directory store is called.

``pending/`` holds ``PRIORITY-DUE-ID.json``: one digit, then the due instant as fixed-width basic
ISO 8601 in UTC with microseconds, so that the order of names is the order of running.
``processing/`` holds ``ID.N.json`` beside the log ``ID.N.log``, ``blocked/`` a directory of
``ID.json`` for each job that others wait for; all other states hold ``ID.json``.
"""

import re
from datetime import UTC, datetime

from queuectl.clock import format_instant
from queuectl.job import ID_PATTERN, Job, State

SUFFIX = ".json"
_DUE_END = 25  # "5-20261124T212959.001002Z" is 25 characters long
PENDING_ID_AT = _DUE_END + 1
_PENDING = re.compile(rf"[0-9]-[0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}}Z-{ID_PATTERN}\.json")
_PROCESSING = re.compile(rf"({ID_PATTERN})\.([1-9][0-9]{{0,8}})\.json")
_FILED = re.compile(rf"({ID_PATTERN})\.json")


def due_text(instant: datetime) -> str:
    """Return an aware UTC instant as ``20261124T212959.001002Z``."""
    return format_instant(instant).replace("-", "").replace(":", "")


def parse_due(text: str) -> datetime:
    """Return the instant that due_text wrote; the last there is where a hand wrote month 13."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


def pending_name(priority: int, run_at: datetime, job_id: str) -> str:
    """Return the name of a pending job."""
    return f"{priority}-{due_text(run_at)}-{job_id}{SUFFIX}"


def name_in_pending(job: Job) -> str:
    """Return the name that a job has while it is pending."""
    return pending_name(job.priority, job.run_at, job.id)


def is_pending_name(name: str) -> bool:
    """Return whether a name is that of a pending job; a file of another one is adopted."""
    return _PENDING.fullmatch(name) is not None


def looks_pending(name: str) -> bool:
    """Return the same at a tenth of the cost, without looking at the digits or the id."""
    return name[24:26] == "Z-" and name[1:2] == "-"


def is_stranger(name: str) -> bool:
    """Return whether a name in ``pending/`` is to be adopted; hidden files are not."""
    return name.endswith(SUFFIX) and not name.startswith(".") and not is_pending_name(name)


def pending_priority(name: str) -> int:
    """Return the priority in a pending name."""
    return int(name[0])


def pending_due(name: str) -> str:
    """Return the due instant in a pending name, as text that sorts by time."""
    return name[2:_DUE_END]


def pending_id(name: str) -> str:
    """Return the id in a pending name."""
    return name[PENDING_ID_AT : -len(SUFFIX)]


def processing_name(job_id: str, attempt: int) -> str:
    """Return the name of a running job: its id and the number of the attempt."""
    return f"{job_id}.{attempt}{SUFFIX}"


def parse_processing(name: str) -> tuple[str, int] | None:
    """Return id and attempt of a running job's name, None where it is not such a name."""
    match = _PROCESSING.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def filed_name(job_id: str) -> str:
    """Return the name of a job in every other state."""
    return job_id + SUFFIX


def blocked_name(parent: str, job_id: str) -> str:
    """Return the name, in ``blocked/``, of a job that waits for a parent."""
    return f"{parent}/{job_id}{SUFFIX}"


def parse_blocked(name: str) -> tuple[str, str]:
    """Return parent and id of a blocked job's name."""
    parent, _, filed = name.partition("/")
    return parent, filed[: -len(SUFFIX)]


def parse_filed(name: str) -> str | None:
    """Return the id of such a name, None where it is not one."""
    match = _FILED.fullmatch(name)
    return match[1] if match else None


def is_id(value: object) -> bool:
    """Return whether a value is the id of a job, or the name of a worker."""
    return isinstance(value, str) and parse_filed(filed_name(value)) is not None


def id_in_name(state: State, name: str) -> str | None:
    """Return the id of the job that a name in a state's directory is of, None if of none."""
    if state is State.PENDING:
        return pending_id(name) if is_pending_name(name) else None
    if state is State.PROCESSING:
        parsed = parse_processing(name)
        return parsed[0] if parsed else None
    return parse_filed(name)
