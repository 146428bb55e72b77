"""The records of live workers.

A record is locked by its worker as long as that lives; one that can be locked is stale. Nobody's
safety depends on what a record says.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import reduce
from types import MappingProxyType
from typing import Any

from queuectl.clock import parse_instant
from queuectl.document import parse_object
from queuectl.errors import BadDocument, NameTaken, UsageError
from queuectl.job import Attempt, State
from queuectl.store import files
from queuectl.store.base import Tally, WorkerRecord
from queuectl.store.channel import STOP, STOP_NOW, channel_name, channel_owner, open_channel
from queuectl.store.documents import Documents
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory
from queuectl.store.local_worker import RECORD_BYTES, LocalWorker
from queuectl.store.names import filed_name, is_id, parse_processing, processing_name
from queuectl.store.tally import counted, in_last_minute, joined, tally_from, whole_numbers
from queuectl.store.totals import Totals

ABANDONED_SECONDS = 86400.0
_POOL_LOCK_NAME = "pool.lock"
_PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.02
_READS, _READ_AGAIN_SECONDS = 20, 0.001


class WorkerRegistry:
    """The workers of one store: those of this process, and the records of all."""

    def __init__(self, directory: StoreDirectory, documents: Documents) -> None:
        """Take the open store; this process has no worker."""
        self._dir = directory
        self._documents = documents
        self._totals = Totals(directory)
        self._local: Mapping[str, LocalWorker] = MappingProxyType({})
        self._pool = ""  # what the records of all workers of a pool hold, and no others
        self._pool_lock_fd = -1

    def close(self) -> None:
        """Free what is held open; a record that is not held any more is stale."""
        for worker in self._local.values():
            worker.close()
        self._local = {}
        if self._pool_lock_fd >= 0:
            os.close(self._pool_lock_fd)
            self._pool_lock_fd = -1

    # --- pools ---

    def name_pool(self) -> None:
        """Choose what the records of this pool's workers have in common."""
        self._pool = os.urandom(8).hex()

    def reserve_pool(self) -> bool:
        """Keep pool.lock locked for a pool that is to be the only one; see Store.reserve_pool."""
        fd = self._dir.open_lock_file(_POOL_LOCK_NAME)
        until = time.monotonic() + _PATIENCE_SECONDS
        # The lock is for two that start together: neither has workers yet. A pool that is about to
        # end holds it, too, and has no worker any more: then it is waited for.
        while not (is_locked := files.lock(fd)) and not self.workers() and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        if not is_locked or self.workers():
            os.close(fd)
            return False
        self._pool_lock_fd = fd
        return True

    def pool_is_busy(self) -> bool:
        """Return whether a worker of this pool, a killed one included, has a job in progress."""
        return any(
            record.pool == self._pool and self._is_in_progress(record)
            for record, _, _ in self._records()
        )

    # --- the workers of this process ---

    def register(self, name: str, now: datetime) -> None:
        """Write a worker's record and keep it locked; see Store.register."""
        worker, filed = LocalWorker(name, self._pool, now), filed_name(name)
        path = f"{self._dir.location}/workers/{filed}"
        with self._totals.locked(), store_errors(f"{path} cannot be written"):
            # RACE: two may choose one name at the same time, and whoever tidies must not take what
            # is made here for what a killed worker left; see test_names.py.
            if name in self._totals.read()[1] or any(
                self._dir.exists("workers", each) for each in (filed, channel_name(name))
            ):
                raise NameTaken(f"another worker is called {name}")
            worker.fd = self._dir.replace(worker.text(), "workers", filed, sync=False)
            self._local = {**self._local, name: worker}
            # After the record: without one it is what a killed worker left behind.
            worker.control_fd = open_channel(self._dir.fd("workers"), name)

    def unregister(self, *names: str) -> None:
        """Remove workers' records; see Store.unregister."""
        workers = [worker for each in names or ("",) if (worker := self.local(each)) is not None]
        self._totals.add({worker.name: worker.tally for worker in workers})
        for worker in workers:
            for name in (filed_name(worker.name), channel_name(worker.name)):
                with suppress(OSError):  # somebody was faster, or the next worker tidies it away
                    os.unlink(name, dir_fd=self._dir.fd("workers"))
            worker.close()
        gone = {worker.name for worker in workers}
        self._local = {name: each for name, each in self._local.items() if name not in gone}

    def local(self, name: str) -> LocalWorker | None:
        """Return a worker of this process; one that is alone need not be named."""
        worker = self._local.get(name)
        if worker is None and not name and len(self._local) == 1:
            return next(iter(self._local.values()))
        return worker

    def control_fd(self, name: str) -> int | None:
        """Return the descriptor that is readable on requests; see Store.control_fd."""
        worker = self.local(name)
        return None if worker is None else worker.control_fd

    def cancel_requested(self, name: str, job_id: str, attempt: int) -> bool:
        """Return whether an attempt is to be ended; see Store.cancel_requested."""
        worker = self.local(name)
        if worker is None:
            return False
        # A request for another attempt came too late: that one has ended by itself.
        wanted = f"{job_id}.{attempt}"
        worker.requests = worker.receive() & {wanted, STOP, STOP_NOW}
        return wanted in worker.requests

    def stop_level(self, name: str) -> int:
        """Return what has come to a worker past its supervisor; see Store.stop_level."""
        worker = self.local(name)
        requests = frozenset() if worker is None else worker.receive()
        return 2 if STOP_NOW in requests else int(STOP in requests)

    def note(self, name: str, runs: tuple[str, int] | None, since: datetime) -> None:
        """Note in the record of a worker what it runs since when; None for nothing."""
        worker = self.local(name)
        if worker is not None:
            worker.note(runs, since)

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts that are settled, each for its worker, and note which workers are idle.

        What others ran, and this process has recovered, counts for one of its workers, too.
        """
        one = next(iter(self._local.values()), None)
        by_worker: dict[LocalWorker | None, list[Attempt]] = {}
        for attempt in attempts:
            by_worker.setdefault(self._local.get(attempt.worker, one), []).append(attempt)
        for worker, its in by_worker.items():
            if worker is None:  # a supervisor that has recovered what a worker lost
                self._totals.add({"": counted(Tally(), its, time.time())})
            else:
                worker.count(its)

    # --- the records of all ---

    def workers(self) -> list[WorkerRecord]:
        """Return the records that are locked, by name; see Store.workers."""
        return sorted(
            (record for record, _, live in self._records() if live), key=lambda each: each.name
        )

    def runner_of(self, job_id: str, attempt: int | None) -> WorkerRecord | None:
        """Return the live worker whose record says that it runs an attempt, None if none does."""
        for record in self.workers():
            if (record.job, record.attempt) == (job_id, attempt):
                return record
        return None

    def last_runner_of(self, job_id: str, attempt: int) -> str:
        """Return the worker, live or not, whose record says that it ran an attempt, or ''."""
        for record, _, _ in self._records():
            if (record.job, record.attempt) == (job_id, attempt):
                return record.name
        return ""

    def tally(self) -> Tally:
        """Return what all workers have counted; see Store.tally."""
        return reduce(joined, self._tallies())

    def ended_lately(self) -> int:
        """Return how many attempts ended in the last minute; see Store.ended_lately."""
        now = time.time()
        return round(sum(in_last_minute(each.recent, now) for each in self._tallies()))

    def _tallies(self) -> list[Tally]:
        """Return what workers that are gone have counted, then what each of the others has."""
        # RACE: a worker that leaves moves its count from its record to the totals.
        while True:
            totals, names = self._totals.read()
            tallies = [tally for record, tally, _ in self._records() if record.name not in names]
            if self._totals.read() == (totals, names):
                return [totals, *tallies]

    def _records(self) -> Iterator[tuple[WorkerRecord, Tally, bool]]:
        """Stream the records, each with its counts and whether its worker lives."""
        for name in list(self._dir.names("workers")):
            if not name.endswith(".json"):
                continue
            with store_errors(f"{self._dir.location}/workers/{name} cannot be read"):
                fd = files.open_document(self._dir.fd("workers"), name)
                if fd is None:
                    continue
                try:
                    live = name.removesuffix(".json") in self._local or files.is_locked(fd)
                    record, tally = _read_whole_record(fd) if live else _read_record(fd)
                except ValueError:
                    continue  # it is no record
                finally:
                    os.close(fd)
            yield record, tally, live

    def _is_in_progress(self, record: WorkerRecord) -> bool:
        """Return whether the attempt that a record names is in processing/."""
        name = processing_name(str(record.job), record.attempt or 0)
        return parse_processing(name) is not None and self._dir.exists(State.PROCESSING, name)

    # --- what killed workers leave behind ---

    def tidy(self) -> None:
        """Remove records and FIFOs that nobody holds and old files in tmp/; see Store.tidy."""
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
        return self._is_in_progress(record)

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
