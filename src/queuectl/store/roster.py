"""Keep the records of live workers, and the request to stop them.

A record is locked by its worker as long as that lives; one that can be locked is stale. Nobody's
safety depends on what stands in it.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from queuectl.clock import format_instant, parse_instant, utc_now
from queuectl.errors import (
    BadDocument,
    ConfigError,
    NameTaken,
    StoreError,
    UsageError,
)
from queuectl.job import (
    Attempt,
    State,
    parse_object,
)
from queuectl.logs import log_name
from queuectl.store import files
from queuectl.store.base import (
    Tally,
    WorkerRecord,
)
from queuectl.store.channel import (
    STOP,
    STOP_NOW,
    channel_name,
    channel_owner,
    open_channel,
    receive,
    send,
)
from queuectl.store.names import (
    filed_name,
    parse_filed,
    parse_processing,
    processing_name,
)
from queuectl.store.place import Place
from queuectl.store.tally import (
    counted,
    in_last_minute,
    joined,
    tally_document,
    tally_from,
    whole_numbers,
    without_future,
)

if TYPE_CHECKING:
    from queuectl.store.watch import Watch

ABANDONED_SECONDS = 86400.0
_RECORD_BYTES = 1024
_TALLY_NAME = "tally.json"
_POOL_LOCK_NAME = "pool.lock"
_PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.02


class Pill(NamedTuple):
    """Be one stop_workers file; another file at the same path is another request."""

    inode: int
    modified_at: int
    now: bool


def _is_name(value: object) -> bool:
    return isinstance(value, str) and parse_filed(filed_name(value)) is not None


class Post:
    """Be a live worker of this process: its record, its FIFO, and what it has counted."""

    def __init__(self, name: str, pool: str, now: datetime) -> None:
        """Begin idle, with nothing counted; ``fd`` and ``control_fd`` are to be opened."""
        self.name = name
        self.fd = -1  # of the record, which it keeps locked
        self.control_fd: int | None = None
        self.heard: frozenset[str] = frozenset()  # of the requests to it
        self.tally = Tally()
        self._started_at = now.timestamp()
        self._runs: tuple[str, int] | None = None
        self._since = now
        worker = {"name": name, "pid": os.getpid(), "host": os.uname().nodename, "pool": pool}
        self._start = json.dumps(worker)[:-1]
        self._end = self._counts_text()

    def close(self) -> None:
        """Let go of the record and of the FIFO."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.control_fd is not None:
            os.close(self.control_fd)
            self.control_fd = None

    def hear(self) -> frozenset[str]:
        """Return the requests that have come, with those from before."""
        if self.control_fd is not None:
            self.heard |= set(receive(self.control_fd))
        return self.heard

    def text(self) -> bytes:
        """Return the record, put together from its parts: it is written anew for each job."""
        runs = '"job": null, "attempt": null'
        if self._runs is not None:
            runs = f'"job": "{self._runs[0]}", "attempt": {self._runs[1]}'
        text = f'{self._start}, "since": "{format_instant(self._since)}", {runs}, {self._end}'
        # Of one size, so that it can be written over by one call.
        return text.ljust(_RECORD_BYTES - 1).encode() + b"\n"

    def _counts_text(self) -> str:
        document = {
            "started_at": self._started_at,
            **tally_document(self.tally),
        }
        return json.dumps(document)[1:]

    def tell(self, runs: tuple[str, int] | None, since: datetime) -> None:
        """Write into the record what the worker runs since when; None for nothing.

        Nobody's safety depends on it.
        """
        self._runs, self._since = runs, since
        with suppress(OSError):  # a full disk must not cost what this tells of
            os.pwrite(self.fd, self.text(), 0)

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts that are settled, and tell that the worker is idle if its own is."""
        self.tally = counted(self.tally, attempts, time.time())
        self._end = self._counts_text()
        if self._runs is not None and log_name(*self._runs) in [each.log for each in attempts]:
            self.tell(None, utc_now())
        else:
            self.tell(self._runs, self._since)


class Roster(Place):
    """Know the workers of one store."""

    _posts: Mapping[str, Post] = MappingProxyType({})  # those of this process, by worker
    _pool = ""  # what the records of all workers of a pool hold, and no others
    _pool_lock_fd = -1
    _stop_watch: "Watch | None" = None

    def close(self) -> None:
        """Free what is held open; a record that is not held any more is stale."""
        if self._stop_watch is not None:
            self._stop_watch.close()
            self._stop_watch = None
        for post in self._posts.values():
            post.close()
        self._posts = {}
        if self._pool_lock_fd >= 0:
            os.close(self._pool_lock_fd)
            self._pool_lock_fd = -1
        super().close()

    # --- pools ---

    def name_pool(self) -> None:
        """Choose what the records of this pool's workers have in common."""
        self._pool = os.urandom(8).hex()

    def reserve_pool(self) -> bool:
        """Keep pool.lock locked for a pool that is to be the only one; see Store.reserve_pool."""
        fd = self._open_lock_file(_POOL_LOCK_NAME)
        until = time.monotonic() + _PATIENCE_SECONDS
        # The lock is for two that start together: neither has workers yet. One that is about to
        # end has it, too, and none any more: then it is waited for.
        while not (is_locked := files.lock(fd)) and not self.workers() and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        if not is_locked or self.workers():
            os.close(fd)
            return False
        self._pool_lock_fd = fd
        return True

    # --- workers and the request to stop them ---

    def register(self, name: str, now: datetime) -> None:
        """Write a worker's record and keep it locked; see Store.register."""
        post = Post(name, self._pool, now)
        with self._changing_totals(), self._telling(f"{self._record_path(name)} cannot be written"):
            # RACE: two may choose one name at the same time, and whoever tidies must not take what
            # is made here for what a killed worker left; see test_names.py.
            if self._is_name_taken(name):
                raise NameTaken(f"another worker is called {name}")
            post.fd = self._put(post.text(), self._fd("workers"), filed_name(name), sync=False)
            self._posts = {**self._posts, name: post}
            # After the record: without one it is what a killed worker left behind.
            post.control_fd = open_channel(self._fd("workers"), name)

    def _record_path(self, name: str) -> str:
        return f"{self.location}/workers/{filed_name(name)}"

    def _is_name_taken(self, name: str) -> bool:
        """Return whether a worker has a name, or had it and left a record or a count."""
        return name in self._totals()[1] or any(
            self._exists(self._fd("workers"), each)
            for each in (filed_name(name), channel_name(name))
        )

    def _post(self, worker: str) -> Post | None:
        """Return the post of a worker of this process; one that is alone need not be named."""
        post = self._posts.get(worker)
        if post is None and not worker and len(self._posts) == 1:
            return next(iter(self._posts.values()))
        return post

    def _tell_record(self, worker: str, runs: tuple[str, int] | None, since: datetime) -> None:
        """Write into a worker's record what it runs since when; None for nothing."""
        post = self._post(worker)
        if post is not None:
            post.tell(runs, since)

    def _count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts that are settled, each for its worker, and tell which are idle.

        What others ran, and this process has recovered, counts for one of its workers, too.
        """
        one = next(iter(self._posts.values()), None)
        by_post: dict[Post | None, list[Attempt]] = {}
        for attempt in attempts:
            by_post.setdefault(self._posts.get(attempt.worker, one), []).append(attempt)
        for post, its in by_post.items():
            if post is None:  # a supervisor that has recovered what a worker lost
                self._add_to_totals({"": counted(Tally(), its, time.time())})
            else:
                post.count(its)

    def _totals(self) -> tuple[Tally, list[str]]:
        """Return what workers that are gone have counted, and which of them may have a record."""
        try:
            document = parse_object(self._read_root_file(_TALLY_NAME) or b"{}")
            names = document.get("workers", [])
            if not isinstance(names, list) or not all(map(_is_name, names)):
                raise ValueError("not the names of workers")
            return tally_from(document), names
        except (BadDocument, ConfigError, ValueError):
            return Tally(), []  # broken by a hand: the counting begins anew

    @contextmanager
    def _changing_totals(self) -> Iterator[None]:
        """Keep others from changing totals and names, by the lock of the directory of the records.

        Not by pending.lock: importing filelock takes a worker longer than all else when it leaves.
        """
        with self._telling(f"{self.location}/workers cannot be locked"):
            fd = self._reopen("workers")
            try:
                files.wait_for_lock(fd)
                yield
            finally:
                os.close(fd)

    def _add_to_totals(self, tallies: Mapping[str, Tally]) -> None:
        """Add what workers have counted before their records go, once for each; '' is none."""
        if not any(tally.by_outcome for tally in tallies.values()):
            return
        with suppress(StoreError), self._changing_totals():
            totals, names = self._totals()
            totals = without_future(totals, time.time())
            new = {name: tally for name, tally in tallies.items() if name not in names}
            if not new:
                return
            names = [each for each in names if self._exists(self._fd("workers"), filed_name(each))]
            document = {
                **tally_document(reduce(joined, new.values(), totals)),
                "workers": [*names, *filter(None, new)],
            }
            with self._telling(f"{self.location}/{_TALLY_NAME} cannot be written"):
                # Whole, and not durable at once: a count may be lost to a power failure.
                data = (json.dumps(document) + "\n").encode()
                os.close(self._put(data, self._root_fd, _TALLY_NAME))

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
            totals, names = self._totals()
            tallies = [
                tally for record, tally, _ in self._tallied_records() if record.name not in names
            ]
            if self._totals() == (totals, names):
                return [totals, *tallies]

    def unregister(self, *workers: str) -> None:
        """Remove workers' records; see Store.unregister."""
        posts = [post for each in workers or ("",) if (post := self._post(each)) is not None]
        self._add_to_totals({post.name: post.tally for post in posts})
        for post in posts:
            for name in (filed_name(post.name), channel_name(post.name)):
                with suppress(OSError):  # a hand was faster, or the next worker tidies it away
                    os.unlink(name, dir_fd=self._fd("workers"))
            post.close()
        gone = {post.name for post in posts}
        self._posts = {name: each for name, each in self._posts.items() if name not in gone}

    def workers(self) -> list[WorkerRecord]:
        """Return the records that are locked, by name; see Store.workers."""
        return sorted(
            (record for record, live in self._records() if live), key=lambda each: each.name
        )

    def _records(self) -> Iterator[tuple[WorkerRecord, bool]]:
        return ((record, live) for record, _, live in self._tallied_records())

    def _tallied_records(self) -> Iterator[tuple[WorkerRecord, Tally, bool]]:
        for name in list(self._names("workers")):
            if not name.endswith(".json"):
                continue
            with self._telling(f"{self.location}/workers/{name} cannot be read"):
                fd = files.open_document(self._fd("workers"), name)
                if fd is None:
                    continue
                try:
                    live = name.removesuffix(".json") in self._posts or files.is_locked(fd)
                    record, tally = self._read_record(fd)
                except ValueError:
                    continue  # no record, or one that is being written at this moment
                finally:
                    os.close(fd)
            yield record, tally, live

    @staticmethod
    def _read_record(fd: int) -> tuple[WorkerRecord, Tally]:
        """Return what a record holds. Raises: ValueError where it is none."""
        try:
            document: Mapping[str, Any] = parse_object(os.pread(fd, _RECORD_BYTES, 0))
            since = parse_instant(str(document.get("since")))
        except (BadDocument, UsageError) as error:
            raise ValueError(str(error)) from error
        name, host, job = document.get("name"), document.get("host"), document.get("job")
        if not (_is_name(name) and isinstance(host, str) and (job is None or _is_name(job))):
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

    def _pool_is_busy(self) -> bool:
        """Return whether a worker of this pool, a killed one included, has a job that runs."""
        return any(
            record.pool == self._pool and self._record_is_of_running_job(record)
            for record, _ in self._records()
        )

    def _record_is_of_running_job(self, record: WorkerRecord) -> bool:
        """Return whether the attempt that a record names is in processing/."""
        name = processing_name(str(record.job), record.attempt or 0)
        return parse_processing(name) is not None and self._exists(self._fd(State.PROCESSING), name)

    def _worker_of(self, job_id: str, attempt: int) -> str:
        for record, _ in self._records():
            if (record.job, record.attempt) == (job_id, attempt):
                return record.name
        return ""

    def tidy(self) -> None:
        """Remove records and FIFOs that nobody holds and old files in tmp/; see Store.tidy."""
        with self._telling(f"{self.location}/tmp cannot be tidied"):
            for name in list(self._names("tmp")):
                with self._locked("tmp", name) as fd:
                    if fd is not None and os.fstat(fd).st_mtime < time.time() - ABANDONED_SECONDS:
                        with suppress(FileNotFoundError):  # a worker has taken it as a spare file
                            os.unlink(name, dir_fd=self._fd("tmp"))
        self._tidy_records()

    def _tidy_records(self) -> None:
        with self._telling(f"{self.location}/workers cannot be tidied"):
            for name in list(self._names("workers")):
                with self._locked("workers", name) as fd:
                    if fd is None or not name.endswith(".json") or self._tells_of_a_running_job(fd):
                        continue
                    with suppress(ValueError):
                        record, tally = self._read_record(fd)
                        self._add_to_totals({record.name: tally})
                    os.unlink(name, dir_fd=self._fd("workers"))
            for name in list(self._names("workers")):
                worker = channel_owner(name)
                if worker and not self._exists(self._fd("workers"), filed_name(worker)):
                    self._remove_channel(worker)

    def _remove_channel(self, worker: str) -> None:
        """Remove the FIFO of a worker that has no record, as none is about to have."""
        with self._changing_totals():
            if not self._exists(self._fd("workers"), filed_name(worker)):
                # Its worker has just left, or a hand has made it, and not a file.
                with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                    os.unlink(channel_name(worker), dir_fd=self._fd("workers"))

    def _tells_of_a_running_job(self, fd: int) -> bool:
        """Tell whether a stale record is the only one to say who ran a command that runs still."""
        try:
            record, _ = self._read_record(fd)
        except ValueError:
            return False
        return self._record_is_of_running_job(record)

    def request_stop(self, *, now: bool) -> Pill:
        """Write a new stop_workers file; see Store.request_stop."""
        document = {"now": now, "at": format_instant(utc_now())}
        # Listed before: those who start later are not asked.
        records = self.workers()
        self._write_root_file("stop_workers", (json.dumps(document) + "\n").encode())
        pill = self.stop_request()
        assert pill is not None
        for record in records:
            with suppress(OSError):  # its supervisor tells it, too, unless that is gone or stopped
                send(self._fd("workers"), record.name, STOP_NOW if now else STOP)
        return pill

    def stop_request(self) -> Pill | None:
        """Return the stop_workers file that lies there; see Store.stop_request."""
        if self._root_fd < 0:
            return None
        if self._stop_watch is not None:
            self._stop_watch.arrivals()
        with self._telling(f"{self.location}/stop_workers cannot be read"):
            fd = files.open_document(self._root_fd, "stop_workers")
            if fd is None:
                return None
            try:
                status = os.fstat(fd)
                now = bool(parse_object(files.read_all(fd, 4096)).get("now", False))
            except BadDocument:
                # A hand may write the file, too: `touch stop_workers` asks for a graceful stop.
                now = False
            finally:
                os.close(fd)
        return Pill(status.st_ino, status.st_mtime_ns, now)

    def stop_fd(self) -> int | None:
        """Return the descriptor that tells of files in the store's root; see Store.stop_fd."""
        if self._stop_watch is None:
            from queuectl.store.watch import Watch

            self._stop_watch = Watch(self.location)
        return self._stop_watch.fd
