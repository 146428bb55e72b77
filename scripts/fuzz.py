"""Give bytes that atheris finds to all that reads foreign bytes; scripts/fuzz runs this.

The first byte chooses the reader. What a reader may raise is an error that a user is told about in
one line; what it returns must come back when it is written and read again.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["queuectl"]):
    from queuectl.clock import format_duration, format_instant, parse_duration, parse_instant
    from queuectl.codes import NO_RULE, check_codes, includes
    from queuectl.config import Defaults, Settings, read_settings, settings_document
    from queuectl.document import encode_job, job_from_document
    from queuectl.errors import QueuectlError
    from queuectl.job import check_id
    from queuectl.store import names, records
    from queuectl.store.logs import parse_log_name
    from queuectl.store.tally import tally_document, tally_from
    from queuectl.strict_json import parse_object
    from queuectl.submit import Options, Submitter, job_from_user

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
DEFAULTS = Defaults(Settings(), "/", NOON)
LONGEST_MESSAGE = 1000


def read_document(data: bytes) -> None:
    """Read a document of the store, and write and read it again."""
    job = job_from_document(parse_object(data), "stem", DEFAULTS)
    written = encode_job(job)
    again = job_from_document(parse_object(written), "other", DEFAULTS)
    assert again == job, (again, job)
    assert encode_job(again) == written


def read_users_document(data: bytes) -> None:
    """Read a document that a user gives to enqueue."""
    job = job_from_user(parse_object(data), "made", DEFAULTS)
    assert check_id(job.id)
    assert job.command.strip()


def read_config(data: bytes) -> None:
    """Read a config.json, and what is listed of it."""
    settings = read_settings(parse_object(data), "config.json")
    settings_document(settings)


def read_batch(data: bytes) -> None:
    """Read the lines of a batch."""
    submitter = Submitter(Options(here="/"), Settings(), NOON)
    submitter.batch(data.splitlines(keepends=True))
    for job in submitter.jobs:
        assert job_from_document(parse_object(encode_job(job)), "other", DEFAULTS) == job


def read_name(data: bytes) -> None:
    """Read the name of a file in any directory."""
    name = os.fsdecode(data)
    names.looks_pending(name)
    names.is_stranger(name)
    names.parse_due(name)
    for job_id in (names.parse_filed(name), (names.parse_processing(name) or [None])[0]):
        if job_id is not None:
            assert check_id(str(job_id)) == job_id
            assert "/" not in str(job_id)
    if names.is_pending_name(name):
        assert check_id(names.pending_id(name))
        assert names.looks_pending(name)
        assert 0 <= names.pending_priority(name) <= 9
    parse_log_name(name)


def read_text(data: bytes) -> None:
    """Read what an option may be: an id, a duration, an instant, a list of exit codes."""
    text = os.fsdecode(data)
    readers: tuple[Callable[[str], object], ...] = (
        check_id, lambda each: format_duration(parse_duration(each, allow_zero=True)),
        lambda each: parse_instant(format_instant(parse_instant(each))),
        _ask_codes,
    )  # fmt: skip
    for reader in readers:
        _told(reader, text)


def _ask_codes(text: str) -> None:
    codes = check_codes(text, "retry_on")
    if codes != NO_RULE["retry_on"]:
        includes(codes, 7)


def read_tally(data: bytes) -> None:
    """Read a tally.json."""
    try:
        tally = tally_from(parse_object(data))
    except ValueError:
        return
    again = tally_from(parse_object(json.dumps(tally_document(tally))))
    assert (again.by_outcome, again.by_length) == (tally.by_outcome, tally.by_length)


def read_record(data: bytes) -> None:
    """Read a record in workers/."""
    fd = os.memfd_create("record")
    try:
        os.pwrite(fd, data[:4096], 0)
        records._read_record(fd)  # noqa: SLF001  (it has no public name)
    except ValueError:
        return
    finally:
        os.close(fd)


READERS: tuple[Callable[[bytes], None], ...] = (
    read_document, read_users_document, read_config, read_batch, read_name, read_text, read_tally,
    read_record,
)  # fmt: skip


_ATTEMPT = (
    b'{"number":1,"outcome":"failed","started_at":"2026-01-01T00:00:00Z","duration":1.5,'
    b'"exit_code":1}'
)
_DOCUMENT = (
    b'{"command":"true","cwd":"/","env":{"A":"b"},"after":["a"],"timeout":9,"retry_on":"1,64-78",'
    b'"run_at":"2026-01-01"'
)
# One for each reader, in their order, to begin with.
SEEDS = (
    _DOCUMENT + b',"history":[' + _ATTEMPT + b"]}",
    _DOCUMENT + b"}",
    b'{"timeout":"1h30m","backoff-base":2,"retry-on":"1-3"}',
    b"true\n" + _DOCUMENT + b"}\n",
    b"5-20260101T000000.000000Z-a.json",
    b"1h30m",
    b'{"seconds":1.5,"lengths":[0,0,0,0,0,0,0,0,0,0,0],"outcomes":{"failed":1},"workers":["w-1"]}',
    b'{"name":"w-1","pid":1,"host":"h","since":"2026-01-01T00:00:00Z","job":"a","attempt":1}',
)


def _told(reader: Callable[..., object], value: object) -> None:
    try:
        reader(value)
    except QueuectlError as error:
        message = str(error)
        assert message, "an error says nothing"
        assert len(message) < LONGEST_MESSAGE, message


def one_input(data: bytes) -> None:
    """Give an input to the reader that its first byte chooses."""
    if data:
        _told(READERS[data[0] % len(READERS)], data[1:])


if __name__ == "__main__":
    for index, seed in enumerate(SEEDS):
        Path(sys.argv[-1], f"seed-{index}").write_bytes(bytes([index]) + seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
