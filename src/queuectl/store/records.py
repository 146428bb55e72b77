"""The records of the workers of all pools, and what they have counted.

A record is locked by its worker as long as that lives; one that can be locked is stale. Nobody's
safety depends on what a record says.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import reduce
from typing import Any

from queuectl.clock import parse_instant
from queuectl.errors import BadDocument, UsageError
from queuectl.job import State
from queuectl.store import files
from queuectl.store.channel import channel_name, channel_owner
from queuectl.store.documents import Documents
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory
from queuectl.store.local_worker import RECORD_BYTES
from queuectl.store.names import filed_name, is_id, parse_processing, processing_name
from queuectl.store.tally import in_last_minute, joined, tally_from, whole_numbers
from queuectl.store.totals import Totals
from queuectl.store.values import Tally, WorkerRecord
from queuectl.strict_json import parse_object

ABANDONED_SECONDS = 86400.0
_READS, _READ_AGAIN_SECONDS = 20, 0.001


class WorkerRecords:
    """The records in workers/, whoever has written them; see protocol.Workers."""

    def __init__(self, directory: StoreDirectory, documents: Documents, totals: Totals) -> None:
        self._dir = directory
        self._documents = documents
        self._totals = totals

    def live(self) -> list[WorkerRecord]:
        """Return the records that are locked, by name; see Workers.live."""
        return sorted(
            (record for record, _, live in self.all() if live), key=lambda each: each.name
        )

    def runner_of(
        self, job_id: str, attempt: int | None, *, or_gone: bool = False
    ) -> WorkerRecord | None:
        """Return the worker, live ``or_gone``, whose record says that it runs an attempt."""
        for record, _, live in self.all():
            if (record.job, record.attempt) == (job_id, attempt) and (live or or_gone):
                return record
        return None

    def tally(self) -> Tally:
        """Return what all workers have counted; see Workers.tally."""
        return reduce(joined, self._tallies())

    def ended_lately(self) -> int:
        """Return how many attempts ended in the last minute; see Workers.ended_lately."""
        now = time.time()
        return round(sum(in_last_minute(each.recent, now) for each in self._tallies()))

    def _tallies(self) -> list[Tally]:
        """Return what workers that are gone have counted, then what each of the others has."""
        # RACE: a worker that leaves moves its count from its record to the totals.
        while True:
            totals, names = self._totals.read()
            tallies = [tally for record, tally, _ in self.all() if record.name not in names]
            if self._totals.read() == (totals, names):
                return [totals, *tallies]

    def all(self) -> Iterator[tuple[WorkerRecord, Tally, bool]]:
        """Stream the records, each with its counts and whether its worker lives."""
        for name in list(self._dir.names("workers")):
            if not name.endswith(".json"):
                continue
            with (
                store_errors(f"{self._dir.location}/workers/{name} cannot be read"),
                files.closing(files.open_document(self._dir.fd("workers"), name)) as fd,
            ):
                if fd is None:
                    continue
                try:
                    live = files.is_locked(fd)
                    record, tally = _read_whole_record(fd) if live else _read_record(fd)
                except ValueError:
                    continue  # it is no record
            yield record, tally, live

    def is_in_progress(self, record: WorkerRecord) -> bool:
        """Return whether the attempt that a record names is in processing/."""
        name = processing_name(str(record.job), record.attempt or 0)
        return parse_processing(name) is not None and self._dir.exists(State.PROCESSING, name)

    # --- what killed workers leave behind ---

    def tidy(self) -> None:
        """Remove records and FIFOs that nobody holds and old files in tmp/; see Pool.tidy."""
        with store_errors(f"{self._dir.location}/tmp cannot be tidied"):
            for name in list(self._dir.names("tmp")):
                with self._documents.locked("tmp", name) as fd:
                    if fd is not None and os.fstat(fd).st_mtime < time.time() - ABANDONED_SECONDS:
                        with suppress(FileNotFoundError):  # a worker has taken it as a spare file
                            os.unlink(name, dir_fd=self._dir.fd("tmp"))
        self.tidy_records()

    def tidy_records(self) -> None:
        """Remove the records and FIFOs of workers that are gone."""
        with store_errors(f"{self._dir.location}/workers cannot be tidied"):
            for name in list(self._dir.names("workers")):
                with self._documents.locked("workers", name) as fd:
                    if fd is None or not name.endswith(".json") or self.is_needed(fd):
                        continue
                    with suppress(ValueError):
                        record, tally = _read_record(fd)
                        self._totals.add({record.name: tally})
                    os.unlink(name, dir_fd=self._dir.fd("workers"))
            for name in list(self._dir.names("workers")):
                worker = channel_owner(name)
                if worker and not self._dir.exists("workers", filed_name(worker)):
                    self._remove_channel(worker)

    def is_needed(self, fd: int) -> bool:
        """Return whether a stale record alone says who ran a command that is in progress."""
        try:
            record, _ = _read_record(fd)
        except ValueError:
            return False
        return self.is_in_progress(record)

    def _remove_channel(self, worker: str) -> None:
        """Remove the FIFO of a worker that has no record, as none is about to have."""
        with self._totals.locked():
            if not self._dir.exists("workers", filed_name(worker)):
                # Its worker has just left, or somebody has made it, and not a file.
                with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                    os.unlink(channel_name(worker), dir_fd=self._dir.fd("workers"))


def _read_whole_record(fd: int) -> tuple[WorkerRecord, Tally]:
    """Return what a live worker's record holds. Raises: ValueError if it is none."""
    for _ in range(_READS - 1):
        # RACE: half of what is being written over is old; see
        # test_record_that_is_read_while_it_is_written_is_read_again.
        with suppress(ValueError):
            return _read_record(fd)
        time.sleep(_READ_AGAIN_SECONDS)
    return _read_record(fd)


def _read_record(fd: int) -> tuple[WorkerRecord, Tally]:
    """Return what a record holds. Raises: ValueError if it is none."""
    try:
        document: Mapping[str, Any] = parse_object(os.pread(fd, RECORD_BYTES, 0))
        since = parse_instant(str(document.get("since")))
    except (BadDocument, UsageError) as error:
        raise ValueError(str(error)) from error
    name, host, job = document.get("name"), document.get("host"), document.get("job")
    if not (is_id(name) and isinstance(host, str) and (job is None or is_id(job))):
        raise ValueError("not the record of a worker")
    attempt = document.get("attempt")
    (pid,) = whole_numbers([document.get("pid")])
    tally = tally_from(document)
    record = WorkerRecord(
        name=str(name),
        pid=pid,
        host=host,
        since=since,
        job=job,
        attempt=None if attempt is None else whole_numbers([attempt])[0],
        settled=sum(tally.by_outcome.values()),
        pool=str(document.get("pool", "")),
    )
    return record, tally
