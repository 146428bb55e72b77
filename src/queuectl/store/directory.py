"""Keep jobs in a directory: a job is a JSON file, a state a subdirectory, a transition a rename.

The rules that keep every job:

1. One place. At every instant, and after a crash at any instant, a job is in one state directory.
2. Whoever holds the lock moves the job. The lock is the kernel's, on the document itself: open it,
   lock it without waiting, check that the path still names what was locked, then act.
3. A claim is that lock and one rename from pending/ to processing/. Who loses a race finds the lock
   held or the name gone, and takes the next name.
4. The command inherits the lock. The kernel frees it when worker and command are gone, and no
   sooner: no heartbeat, no lease, no clock.
5. Record, then move. An attempt is settled by putting the new document, durable and locked, in the
   place of the one in processing/, and then moving it to its state. A document whose history holds
   the attempt that its name tells is ahead of its directory, and recovery rolls it forward; one
   whose history does not was cut off. Elsewhere the directory wins.
6. Durable before acknowledged. Every document is written in tmp/, synced and renamed, and an id is
   told only when the directory is synced, too.
7. Jobs only come into pending/ under a chosen or returning id while pending.lock is held. A look
   for an id under it goes through the states in the order in which jobs move, and misses none.
8. Recovery. Whoever can take the lock of a document in processing/ settles it.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from queuectl.clock import format_instant, later, utc_now
from queuectl.config import Settings, read_settings
from queuectl.errors import (
    AmbiguousPrefix,
    BadDataError,
    BadDocument,
    ConfigError,
    DuplicateId,
    JobNotFound,
    StoreUnavailable,
    WrongState,
)
from queuectl.job import (
    DEFAULT_PRIORITY,
    MAX_DOCUMENT_BYTES,
    Attempt,
    Defaults,
    Job,
    NewerSchema,
    Outcome,
    State,
    check_id,
    encode_job,
    job_from_document,
    parse_object,
)
from queuectl.logs import log_name
from queuectl.policy import retried
from queuectl.store import files
from queuectl.store.base import (
    Claim,
    Counts,
    Decide,
    Entry,
    Progress,
    Recovered,
    RecoveryReport,
    WorkerRecord,
)
from queuectl.store.names import (
    due_text,
    filed_name,
    is_pending_name,
    is_stranger,
    looks_pending,
    parse_due,
    parse_filed,
    parse_processing,
    pending_due,
    pending_id,
    pending_name,
    pending_priority,
    processing_name,
)

if TYPE_CHECKING:
    from queuectl.store.listing import Listing, Slice
    from queuectl.store.watch import Watch

FORMAT = 1
_DIRECTORIES = (*State, "corrupt", "logs", "workers", "tmp")
_FILES = ("config.json", "format", "stop_workers", "pending.lock", "worker.log")
# The states in the order in which a job moves through them, so that a walk meets it (rule 7).
_WALK = (
    State.BLOCKED, State.PENDING, State.PROCESSING, State.COMPLETED, State.DEAD, State.CANCELLED,
)  # fmt: skip
_LOCK_FD_IN_COMMAND = 100  # so high that no script closes or reuses it by accident
_STILL_BEING_WRITTEN_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 1.0
_ABANDONED_SECONDS = 86400.0
_RECORD_BYTES = 512
_MANY = 16  # from so many files on, one sync of the file system is cheaper than one for each

# What a document must hold so that no default is needed to read it, and defaults to read it with.
_LIMITS = ("max_retries", "timeout", "priority", "cwd", "created_at", "updated_at", "run_at")
_COMPLETE = Defaults(
    max_retries=0, timeout_seconds=None, priority=0, cwd="/", now=datetime.min.replace(tzinfo=UTC)
)


@dataclass(slots=True, kw_only=True, eq=False)
class _HeldClaim(Claim):
    """Hold the locked descriptor of a claimed document, and what was already done to settle it."""

    fd: int
    name: str
    came_from: str
    recorded_fd: int = -1


@dataclass(frozen=True, slots=True)
class _Pill:
    """Be one stop_workers file; another file at the same path is another request."""

    inode: int
    modified_at: int
    now: bool


class DirectoryStore:
    """Keep jobs in a directory of a local file system."""

    poll_seconds = 0.25

    def __init__(self, location: str, *, create: bool = False) -> None:
        """Open the store; with ``create``, make what is missing.

        Raises: StoreUnavailable, UnsafeStore; ConfigError where a newer version made it.
        """
        self.location = os.path.abspath(os.path.expanduser(location))
        self._root_fd = -1
        self._dir_fds: dict[str, int] = {}
        self._pending_lock: Any = None
        self._lock_depth = 0
        self._slice: Slice | None = None
        self._listing: Listing | None = None
        self._watch: Watch | None = None
        self._stop_watch: Watch | None = None
        self._worker: tuple[int, WorkerRecord] | None = None
        self._settings: tuple[tuple[int, int], Settings] | None = None
        try:
            self._open_root(create=create)
        except BaseException:
            self.close()
            raise

    # --- opening and closing ---

    def _open_root(self, *, create: bool) -> None:
        try:
            self._root_fd = files.open_directory(self.location, follow=True)
        except FileNotFoundError:
            if not create:
                return
            files.make_directory(self.location)
            self._root_fd = files.open_directory(self.location, follow=True)
        known = self._check_format()
        for name in _DIRECTORIES:
            path = os.path.join(self.location, name)
            try:
                self._dir_fds[name] = files.open_directory(path, follow=False)
            except FileNotFoundError:
                if create:
                    files.make_directory(path)
                    self._dir_fds[name] = files.open_directory(path, follow=False)
        if not known and create:
            self._write_root_file("format", f"{FORMAT}\n".encode())
            # Made here, since filelock would leave its mode to the umask.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open("pending.lock", flags, files.FILE_MODE, dir_fd=self._root_fd)
            os.fchmod(fd, files.FILE_MODE)
            os.close(fd)

    def _check_format(self) -> bool:
        """Refuse what is no store, or a newer one; return whether the format is written down."""
        data = self._read_root_file("format")
        if data is None:
            with os.scandir(self.location) as found:
                for entry in found:
                    if entry.name not in (*_DIRECTORIES, *_FILES):
                        raise StoreUnavailable(
                            f"{self.location} is not a queue: it holds {entry.name!r} and no file"
                            " 'format'; give a new or empty directory"
                        )
            return False
        text = data.decode(errors="replace").strip()
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(f"{self.location}/format is broken: it must hold the number {FORMAT}")
        if int(text) > FORMAT:
            raise ConfigError(
                f"{self.location} has format {text[:20]}, and this version of queuectl knows"
                f" {FORMAT}: upgrade queuectl"
            )
        return True

    def close(self) -> None:
        """Free what the store holds open."""
        for watch in (self._watch, self._stop_watch):
            if watch is not None:
                watch.close()
        self._watch = self._stop_watch = None
        for fd in self._dir_fds.values():
            os.close(fd)
        self._dir_fds.clear()
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1
        if self._worker is not None:
            os.close(self._worker[0])
            self._worker = None

    def _fd(self, name: str) -> int:
        fd = self._dir_fds.get(name)
        if fd is None:
            raise StoreUnavailable(f"{self.location}/{name} is missing")
        return fd

    def _names(self, directory: str) -> Iterator[str]:
        """Stream the names in a directory; nothing where it is not there."""
        if directory not in self._dir_fds:
            return
        fd = self._reopen(directory)
        try:
            with os.scandir(fd) as found:
                for entry in found:
                    yield entry.name
        finally:
            os.close(fd)

    def _reopen(self, directory: str) -> int:
        """Open a directory anew: processes that were forked share the position of a descriptor."""
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd(directory))

    # --- small files of the root ---

    def _read_root_file(self, name: str) -> bytes | None:
        if self._root_fd < 0:
            return None
        fd = files.open_document(self._root_fd, name)
        if fd is None:
            if self._exists(self._root_fd, name):
                raise ConfigError(f"{self.location}/{name} is no regular file of yours")
            return None
        try:
            return files.read_all(fd, MAX_DOCUMENT_BYTES)
        finally:
            os.close(fd)

    def _write_root_file(self, name: str, data: bytes) -> None:
        with self._telling(f"{self.location}/{name} cannot be written"):
            temporary = self._temporary(name)
            os.close(files.write_synced(self._fd("tmp"), temporary, data))
            os.rename(temporary, name, src_dir_fd=self._fd("tmp"), dst_dir_fd=self._root_fd)
            os.fsync(self._root_fd)

    @staticmethod
    def _exists(directory_fd: int, name: str) -> bool:
        try:
            os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _temporary(self, name: str) -> str:
        return f"{name}.{os.getpid()}.{time.monotonic_ns()}"

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turn what the system refuses into a fact for the user."""
        try:
            yield
        except OSError as error:
            raise files.as_store_error(error, what) from error

    @contextmanager
    def _moving_into_pending(self) -> Iterator[None]:
        """Hold pending.lock (rule 7); may be nested."""
        from filelock import FileLock

        if self._pending_lock is None:
            path = os.path.join(self.location, "pending.lock")
            self._pending_lock = FileLock(path, mode=files.FILE_MODE)
        with self._telling(f"{self.location}/pending.lock cannot be locked"):
            self._pending_lock.acquire(poll_interval=0.002)
        try:
            yield
        finally:
            self._pending_lock.release()

    # --- what people and scripts do ---

    def add(
        self,
        jobs: Sequence[Job],
        *,
        chosen: Collection[str] = (),
        skip_existing: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Make new jobs durable, then visible in their order; see Store.add."""
        if not chosen:
            self._publish(jobs, progress)
            return [job.id for job in jobs]
        chosen = frozenset(chosen)
        with self._moving_into_pending():
            present = self._find_states(chosen)
            if present and not skip_existing:
                first = next(job.id for job in jobs if job.id in present)
                raise DuplicateId(first, present[first])
            self._publish([job for job in jobs if job.id not in present], progress)
        return [job.id for job in jobs]

    def _publish(self, jobs: Sequence[Job], progress: Progress | None) -> None:
        tmp_fd, pending_fd = self._fd("tmp"), self._fd("pending")
        written: list[tuple[str, str]] = []
        published = 0
        try:
            many = len(jobs) >= _MANY
            for job in jobs:
                temporary = self._temporary(job.id)
                fd = files.write_synced(tmp_fd, temporary, encode_job(job), sync=not many)
                os.close(fd)
                written.append((temporary, pending_name(job.priority, job.run_at, job.id)))
                if progress is not None:
                    progress(1)
            if many:
                files.sync_all(tmp_fd, [temporary for temporary, _ in written])
            for temporary, name in written:
                os.rename(temporary, name, src_dir_fd=tmp_fd, dst_dir_fd=pending_fd)
                published += 1
            os.fsync(pending_fd)
        except BaseException as error:
            kept = self._retract(written, published)
            if not isinstance(error, OSError):
                raise
            fate = "nothing is enqueued"
            if kept:
                fate = f"of {len(jobs)} jobs {kept} were started already, the rest is not enqueued"
            raise files.as_store_error(error, f"{self.location}: {fate}") from error

    def _retract(self, written: Sequence[tuple[str, str]], published: int) -> int:
        """Take back an enqueue that failed; return how many were claimed meanwhile."""
        kept = 0
        for index, (temporary, name) in enumerate(written):
            if index >= published:
                os.unlink(temporary, dir_fd=self._fd("tmp"))
                continue
            with self._locked(State.PENDING, name) as fd:
                if fd is None:
                    kept += 1
                else:
                    os.unlink(name, dir_fd=self._fd("pending"))
        return kept

    def _find_states(self, ids: Collection[str]) -> dict[str, State]:
        """Return where each of the ids is that exists, looking in the order of rule 7."""
        found: dict[str, State] = {}
        for state in _WALK:
            if state in (State.COMPLETED, State.DEAD, State.CANCELLED):
                fd = self._dir_fds.get(state)
                for job_id in ids:
                    if fd is not None and self._exists(fd, filed_name(job_id)):
                        found.setdefault(job_id, state)
                continue
            for job_id, _ in self._identified(state):
                if job_id in ids:
                    found.setdefault(job_id, state)
        return found

    def _identified(self, state: State) -> Iterator[tuple[str, str]]:
        """Stream id and name of each job in a state."""
        for name in self._names(state):
            if state is State.PENDING:
                if looks_pending(name) and name.endswith(".json"):
                    yield pending_id(name), name
                elif is_stranger(name):
                    yield name[:-5], name
            elif state is State.PROCESSING:
                parsed = parse_processing(name)
                if parsed is not None:
                    yield parsed[0], name
            else:
                job_id = parse_filed(name)
                if job_id is not None:
                    yield job_id, name

    def _locate(self, job_id: str) -> tuple[State, str] | None:
        """Return where a job is and its file's name, None where there is no such job."""
        # RACE: a job may move on between two directories; the walk goes the way that jobs go, and
        # one that went back to pending/ behind the walk is met by a second one.
        for _ in range(2):
            for state in _WALK:
                if state in (State.COMPLETED, State.DEAD, State.CANCELLED):
                    fd = self._dir_fds.get(state)
                    if fd is not None and self._exists(fd, filed_name(job_id)):
                        return state, filed_name(job_id)
                    continue
                for found, name in self._identified(state):
                    if found == job_id:
                        return state, name
        return None

    def get(self, job_id: str) -> Job:
        """Return a job, its ``state`` being where it is; see Store.get."""
        for _ in range(100):
            located = self._locate(job_id)
            if located is None:
                break
            state, name = located
            job = self._read(state, name, job_id)
            if job is not None:
                return job
        raise JobNotFound(f"no such job: {job_id}")

    def _read(self, state: State, name: str, job_id: str) -> Job | None:
        """Return the job in a file, None where it is gone. Raises: BadDocument naming the file."""
        with self._telling(f"{self.location}/{state}/{name} cannot be read"):
            fd = files.open_document(self._fd(state), name)
        if fd is None:
            if self._exists(self._fd(state), name):
                raise BadDocument(f"{self.location}/{state}/{name} is no regular file of yours")
            return None
        try:
            job = self._decode(files.read_all(fd, MAX_DOCUMENT_BYTES), job_id, utc_now())
        except BadDataError as error:
            raise BadDocument(f"{self.location}/{state}/{name}: {error}") from error
        finally:
            os.close(fd)
        return self._as_placed(job, state, name, job_id)

    @staticmethod
    def _as_placed(job: Job, state: State, name: str, job_id: str) -> Job:
        """Return the job as its place tells: the name decides about what stands in it."""
        if state is State.PENDING and is_pending_name(name):
            due = pending_due(name)
            run_at = job.run_at if due_text(job.run_at) == due else parse_due(due)
            return replace(
                job, id=job_id, state=state, priority=pending_priority(name), run_at=run_at
            )
        if job.id == job_id and job.state is state:
            return job
        return replace(job, id=job_id, state=state)

    def _defaults(self, now: datetime) -> Defaults:
        settings = self.settings()
        return Defaults(
            max_retries=settings.max_retries,
            timeout_seconds=settings.timeout,
            priority=settings.priority,
            cwd=os.path.expanduser("~"),
            now=now,
        )

    def _decode(self, data: bytes, job_id: str, now: datetime) -> Job:
        """Return the job in a document; what a foreign producer left out comes from the config."""
        if len(data) > MAX_DOCUMENT_BYTES:
            raise BadDocument(f"not a job document: more than {MAX_DOCUMENT_BYTES} bytes")
        document = parse_object(data)
        complete = all(key in document for key in _LIMITS)
        return job_from_document(document, job_id, _COMPLETE if complete else self._defaults(now))

    def resolve(self, prefix: str) -> str:
        """Return the id that is ``prefix`` or, alone, starts with it; see Store.resolve."""
        if not prefix:
            raise JobNotFound("no such job: the id is empty")
        matches: set[str] = set()
        for state in _WALK:
            for job_id, _ in self._identified(state):
                if job_id.startswith(prefix):
                    if job_id == prefix:
                        return job_id
                    matches.add(job_id)
        if not matches:
            raise JobNotFound(f"no such job: {prefix}")
        if len(matches) > 1:
            some = sorted(matches)[:10]
            more = f" and {len(matches) - 10} more" if len(matches) > 10 else ""
            raise AmbiguousPrefix(f"{prefix!r} is ambiguous: {', '.join(some)}{more}")
        return matches.pop()

    def entries(self, state: State, now: datetime, limit: int | None = None) -> list[Entry]:
        """Return what the names tell of the jobs in a state, in order; see Store.entries."""
        from heapq import nlargest, nsmallest

        if state is not State.PENDING:
            timed = self._timed(state)
            newest = nlargest(limit, timed) if limit is not None else sorted(timed, reverse=True)
            return [self._entry(state, name, changed) for changed, name in newest]
        due_by = due_text(now)

        def keys() -> Iterator[tuple[bool, str, str]]:
            for name in self._names(State.PENDING):
                if looks_pending(name):
                    due = name[2:25]
                    if due <= due_by:
                        yield False, "", name
                    elif is_pending_name(name):
                        yield True, due, name
                elif is_stranger(name):
                    yield False, "", f"{DEFAULT_PRIORITY}-{due_by}/{name}"

        ordered = nsmallest(limit, keys()) if limit is not None else sorted(keys())
        return [
            self._entry(state, name, None)
            for _, _, key in ordered
            if is_pending_name(name := key.rpartition("/")[2]) or is_stranger(name)
        ]

    def _timed(self, state: State) -> Iterator[tuple[float, str]]:
        fd = self._dir_fds.get(state)
        if fd is None:
            return
        for _, name in self._identified(state):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield status.st_mtime, name

    @staticmethod
    def _entry(state: State, name: str, changed: float | None) -> Entry:
        changed_at = None if changed is None else datetime.fromtimestamp(changed, UTC)
        if state is State.PENDING:
            if not is_pending_name(name):
                return Entry(id=name[:-5], state=state, priority=DEFAULT_PRIORITY, token=name)
            return Entry(
                id=pending_id(name),
                state=state,
                priority=pending_priority(name),
                run_at=parse_due(pending_due(name)),
                token=name,
            )
        if state is State.PROCESSING:
            parsed = parse_processing(name)
            assert parsed is not None, name
            return Entry(
                id=parsed[0], state=state, attempt=parsed[1], changed_at=changed_at, token=name
            )
        return Entry(id=name[:-5], state=state, changed_at=changed_at, token=name)

    def read(self, entry: Entry) -> Job | None:
        """Return the job of an entry, None where it has moved on; see Store.read."""
        return self._read(entry.state, entry.token, entry.id)

    def counts(self, now: datetime) -> Counts:
        """Count the jobs by the names of their files."""
        by_state = dict.fromkeys(State, 0)
        due_by = due_text(now)
        due = 0
        oldest = next_due = ""
        for name in self._names(State.PENDING):
            if looks_pending(name) and name.endswith(".json"):
                at = name[2:25]
                if at <= due_by:
                    due += 1
                    if not oldest or at < oldest:
                        oldest = at
                elif not next_due or at < next_due:
                    next_due = at
            elif not is_stranger(name):
                continue
            else:
                due += 1
            by_state[State.PENDING] += 1
        for state in State:
            if state is not State.PENDING:
                by_state[state] = sum(1 for _ in self._identified(state))
        return Counts(
            by_state=by_state,
            due=due,
            oldest_due=parse_due(oldest) if oldest else None,
            next_due=parse_due(next_due) if next_due else None,
            unreadable=sum(1 for name in self._names("corrupt") if name.endswith(".json")),
        )

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        """Send a job of one of the states back to pending; see Store.retry."""
        wanted = ", ".join(states)
        with self._moving_into_pending():
            located = self._locate(job_id)
            if located is None:
                raise JobNotFound(f"no such job: {job_id}")
            state, name = located
            if state not in states:
                raise WrongState(f"job {job_id} is {state}, not {wanted}")
            with self._locked(state, name) as fd:
                if fd is None:
                    raise WrongState(f"job {job_id} is being changed by somebody else; try again")
                job = self._read(state, name, job_id)
                assert job is not None, name
                job = retried(job, now)
                recorded_fd = self._record_in_place(state, name, job)
                try:
                    self._move(state, name, State.PENDING, self._name_in_pending(job))
                finally:
                    os.close(recorded_fd)
        return job

    def purge(self, job_id: str, state: State, *, unchanged_since: datetime | None = None) -> bool:
        """Delete a finished job; see Store.purge."""
        name = filed_name(job_id)
        with self._locked(state, name) as fd:
            if fd is None:
                return False
            if unchanged_since is not None and os.fstat(fd).st_mtime > unchanged_since.timestamp():
                return False
            with self._telling(f"{self.location}/{state}/{name} cannot be deleted"):
                os.unlink(name, dir_fd=self._fd(state))
        return True

    def read_config(self) -> dict[str, Any]:
        """Return what was set; see Store.read_config."""
        data = self._read_root_file("config.json")
        if data is None:
            return {}
        try:
            return parse_object(data)
        except BadDocument as error:
            reason = str(error).removeprefix("not a job document: ")
            raise ConfigError(f"{self.location}/config.json is broken: {reason}") from error

    def change_config(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Apply a change to what was set, under pending.lock."""
        with self._moving_into_pending():
            document = change(self.read_config())
            data = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            self._write_root_file("config.json", data.encode())

    def settings(self) -> Settings:
        """Return the settings; see Store.settings."""
        version = self._config_version()
        if self._settings is None or self._settings[0] != version:
            settings = read_settings(self.read_config(), f"{self.location}/config.json")
            self._settings = (version, settings)
        return self._settings[1]

    def _config_version(self) -> tuple[int, int]:
        if self._root_fd < 0:
            return 0, 0
        try:
            status = os.stat("config.json", dir_fd=self._root_fd, follow_symlinks=False)
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    # --- moving documents ---

    @contextmanager
    def _locked(self, state: State | str, name: str) -> Iterator[int | None]:
        """Hold the lock of a document (rule 2); None where it is gone, no document, or held."""
        with self._telling(f"{self.location}/{state}/{name} cannot be opened"):
            fd = files.open_document(self._fd(state), name)
        if fd is None:
            yield None
            return
        try:
            held = files.lock(fd) and files.names_inode(self._fd(state), name, fd)
            yield fd if held else None
        finally:
            os.close(fd)

    def _record_in_place(self, state: State, name: str, job: Job) -> int:
        """Put a new document, durable and locked, in the place of one that is locked."""
        with self._telling(f"{self.location}/{state}/{name} cannot be written"):
            temporary = self._temporary(job.id)
            fd = files.write_synced(self._fd("tmp"), temporary, encode_job(job))
            try:
                files.lock(fd)
                os.rename(temporary, name, src_dir_fd=self._fd("tmp"), dst_dir_fd=self._fd(state))
            except BaseException:
                os.close(fd)
                raise
            return fd

    def _move(self, source: State | str, name: str, target: State | str, new_name: str) -> None:
        with self._telling(f"{self.location}/{source}/{name} cannot be moved to {target}"):
            os.rename(name, new_name, src_dir_fd=self._fd(source), dst_dir_fd=self._fd(target))

    @staticmethod
    def _name_in_pending(job: Job) -> str:
        return pending_name(job.priority, job.run_at, job.id)

    # --- what workers do: claim ---

    def prepare_pool(self) -> None:
        """Reserve the memory in which the workers that are forked from here share a scan."""
        from queuectl.store.listing import Slice

        self._slice = Slice()

    def _worklist(self) -> "Listing":
        if self._listing is None:
            from queuectl.store.listing import Listing, Slice
            from queuectl.store.watch import Watch

            # Watch before the first scan, so that what comes during it is told.
            self._watch = Watch(os.path.join(self.location, "pending"))
            shared = self._slice if self._slice is not None else Slice()
            self._listing = Listing(lambda: self._reopen("pending"), shared)
            self._listing.invalidate()
        return self._listing

    def arrivals_fd(self) -> int | None:
        """Return the descriptor that tells of names in pending/; see Store.arrivals_fd."""
        self._worklist()
        assert self._watch is not None
        return self._watch.fd

    def running(self) -> bool:
        """Tell whether processing/ holds a job; see Store.running."""
        self._worklist()
        assert self._watch is not None
        self._watch.add_departures(os.path.join(self.location, State.PROCESSING))
        return any(True for _ in self._identified(State.PROCESSING))

    def next_due(self) -> datetime | None:
        """Return when the next known name is due; see Store.next_due."""
        due = self._worklist().next_due()
        return None if due is None else parse_due(due)

    def claim(self, now: datetime) -> Claim | None:
        """Take the first due job; see Store.claim."""
        worklist = self._worklist()
        assert self._watch is not None
        due_by = due_text(now)
        self._take_in_arrivals(worklist, now)
        while True:
            name = worklist.next(due_by)
            while worklist.strangers:
                self._adopt(worklist.strangers.pop(), now)
            if name is None:
                return None
            claim = self._claim_name(name, now)
            if claim is not None:
                return claim

    def _take_in_arrivals(self, worklist: "Listing", now: datetime) -> None:
        assert self._watch is not None
        arrivals = self._watch.arrivals()
        if arrivals is None:
            worklist.invalidate()
            return
        for name in arrivals:
            if is_pending_name(name):
                worklist.left_alone.discard(name)
                worklist.arrived(name)
            elif is_stranger(name):
                self._adopt(name, now)

    def _claim_name(self, name: str, now: datetime) -> Claim | None:
        """Claim one pending document (rule 3), or say when to look at it again."""
        pending_fd, processing_fd = self._fd("pending"), self._fd("processing")
        with self._telling(f"{self.location}/pending/{name} cannot be claimed"):
            fd = files.open_document(pending_fd, name)
            if fd is None:
                if self._exists(pending_fd, name):
                    self._worklist().left_alone.add(name)
                return None
            keep = False
            try:
                if not files.lock(fd):
                    self._look_again(name, later(now, _LOOK_AGAIN_SECONDS))
                    return None
                # RACE: between open and lock another worker may have moved the document on.
                if not files.names_inode(pending_fd, name, fd):
                    return None
                job = self._read_pending(fd, name, now)
                if job is None:
                    return None
                attempt = job.next_attempt
                running = processing_name(job.id, attempt)
                if self._exists(processing_fd, running):
                    # A second document of a job that runs, put here by a hand.
                    self._look_again(name, later(now, _LOOK_AGAIN_SECONDS))
                    return None
                os.rename(name, running, src_dir_fd=pending_fd, dst_dir_fd=processing_fd)
                # RACE: a hand may have put another file there between the check and the rename.
                if not files.names_inode(processing_fd, running, fd):
                    os.rename(running, name, src_dir_fd=processing_fd, dst_dir_fd=pending_fd)
                    return None
                os.utime(fd)
                keep = True
            finally:
                if not keep:
                    os.close(fd)
        self._tell_record(job.id, attempt)
        return _HeldClaim(
            job=job,
            attempt=attempt,
            started_at=now,
            pass_fds=((fd, _LOCK_FD_IN_COMMAND),),
            fd=fd,
            name=running,
            came_from=name,
        )

    def _look_again(self, name: str, at: datetime) -> None:
        self._worklist().again(name, due_text(at))

    def _read_pending(self, fd: int, name: str, now: datetime) -> Job | None:
        """Return the job in a locked document of pending/; None where it cannot be run now."""
        try:
            job = self._decode(files.read_all(fd, MAX_DOCUMENT_BYTES), pending_id(name), now)
        except NewerSchema:
            self._worklist().left_alone.add(name)
            return None
        except BadDataError as error:
            self._set_aside(State.PENDING, name, fd, str(error))
            return None
        return self._as_placed(job, State.PENDING, name, pending_id(name))

    def _set_aside(self, state: State, name: str, fd: int, reason: str) -> None:
        """Move a locked document that cannot be read to corrupt/, unless it is being written."""
        age = time.time() - os.fstat(fd).st_mtime
        if state is State.PENDING and 0 <= age < _STILL_BEING_WRITTEN_SECONDS:
            self._look_again(name, later(utc_now(), _STILL_BEING_WRITTEN_SECONDS - age))
            return
        corrupt_fd = self._fd("corrupt")
        stem, number = name[:-5], 1
        kept_as = name
        while self._exists(corrupt_fd, kept_as) or self._exists(corrupt_fd, kept_as + ".reason"):
            number += 1
            kept_as = f"{stem}-{number}.json"
        with self._telling(f"{self.location}/corrupt/{kept_as}.reason cannot be written"):
            temporary = self._temporary("reason")
            text = f"{format_instant(utc_now())} {state}/{name}: {reason}\n"
            data = text.encode(errors="backslashreplace")
            os.close(files.write_synced(self._fd("tmp"), temporary, data))
            os.rename(
                temporary,
                kept_as + ".reason",
                src_dir_fd=self._fd("tmp"),
                dst_dir_fd=corrupt_fd,
            )
        self._move(state, name, "corrupt", kept_as)

    def _adopt(self, name: str, now: datetime) -> None:
        """Give a file that was dropped into pending/ its place in the order."""
        with self._locked(State.PENDING, name) as fd:
            if fd is None:
                return
            try:
                document = parse_object(files.read_all(fd, MAX_DOCUMENT_BYTES))
                wanted = document.get("id")
                wanted = check_id(name[:-5] if wanted is None else str(wanted))
                job = job_from_document(document, wanted, self._defaults(now))
            except NewerSchema:
                return
            except BadDataError as error:
                self._set_aside(State.PENDING, name, fd, str(error))
                return
            with self._moving_into_pending():
                job_id, number = wanted, 1
                while self._is_taken(job_id, name):
                    number += 1
                    job_id = f"{wanted[:90]}-{number}"
                job = replace(
                    job,
                    id=job_id,
                    state=State.PENDING,
                    priority=DEFAULT_PRIORITY,
                    run_at=now,
                    updated_at=now,
                )
                recorded_fd = self._record_in_place(State.PENDING, name, job)
                try:
                    adopted = self._name_in_pending(job)
                    self._move(State.PENDING, name, State.PENDING, adopted)
                finally:
                    os.close(recorded_fd)
        self._worklist().arrived(adopted)

    def _is_taken(self, job_id: str, except_name: str) -> bool:
        located = self._locate(job_id)
        return located is not None and located != (State.PENDING, except_name)

    # --- what workers do: settle, give back, recover ---

    def settle(self, settlements: Sequence[tuple[Claim, Job]]) -> None:
        """Record what became of claimed jobs, then move them (rule 5); see Store.settle."""
        held: list[tuple[_HeldClaim, Job]] = []
        fresh: list[tuple[_HeldClaim, Job]] = []
        for claim, job in settlements:
            assert isinstance(claim, _HeldClaim)
            if claim.fd >= 0:
                held.append((claim, job))
                if claim.recorded_fd < 0:
                    fresh.append((claim, job))
        self._record(fresh)
        for claim, job in held:
            self._roll_forward(claim.name, job)
            os.close(claim.recorded_fd)
            os.close(claim.fd)
            claim.fd = claim.recorded_fd = -1

    def _record(self, settlements: Sequence[tuple["_HeldClaim", Job]]) -> None:
        """Put new documents, durable and locked, in the place of the claimed ones."""
        tmp_fd, processing_fd = self._fd("tmp"), self._fd(State.PROCESSING)
        written: list[tuple[str, int]] = []
        with self._telling(f"{self.location}/{State.PROCESSING} cannot be written"):
            try:
                for _, job in settlements:
                    temporary = self._temporary(job.id)
                    fd = files.write_synced(tmp_fd, temporary, encode_job(job), sync=False)
                    written.append((temporary, fd))
                # The claims' renames must be durable before those that come now: else a power
                # failure could undo the first and keep the second, and leave the job in two places.
                files.sync_files([fd for _, fd in written], [self._fd("pending"), processing_fd])
                for claim, _ in settlements:
                    temporary, fd = written[0]
                    files.lock(fd)
                    os.rename(temporary, claim.name, src_dir_fd=tmp_fd, dst_dir_fd=processing_fd)
                    claim.recorded_fd = fd
                    del written[0]
            finally:
                for temporary, fd in written:
                    os.close(fd)
                    os.unlink(temporary, dir_fd=tmp_fd)

    def _roll_forward(self, name: str, job: Job) -> None:
        """Move a document that is ahead of its directory to the state that it names."""
        if job.state is State.PENDING:
            with self._moving_into_pending():
                self._move(State.PROCESSING, name, State.PENDING, self._name_in_pending(job))
        else:
            self._move(State.PROCESSING, name, job.state, filed_name(job.id))

    def give_back(self, claim: Claim) -> None:
        """Put a claimed job back as it was by one rename; see Store.give_back."""
        assert isinstance(claim, _HeldClaim)
        with self._moving_into_pending():
            self._move(State.PROCESSING, claim.name, State.PENDING, claim.came_from)
        os.close(claim.fd)
        claim.fd = -1
        self._tell_record(None, None)

    def recover(self, decide: Decide) -> RecoveryReport:
        """Settle the documents in processing/ that nobody holds (rule 8); see Store.recover."""
        recovered: list[Recovered] = []
        held: set[tuple[str, int]] = set()
        for name in list(self._names(State.PROCESSING)):
            parsed = parse_processing(name)
            if parsed is None:
                continue
            with self._locked(State.PROCESSING, name) as fd:
                if fd is None:
                    held.add(parsed)
                else:
                    found = self._recover_locked(name, fd, parsed, decide)
                    if found is not None:
                        recovered.append(found)
        owned = {(record.job, record.attempt) for record in self.workers()} if held else set()
        return RecoveryReport(recovered=recovered, unowned=len(held - owned))

    def _recover_locked(
        self, name: str, fd: int, parsed: tuple[str, int], decide: Decide
    ) -> Recovered | None:
        job_id, number = parsed
        now = utc_now()
        try:
            job = self._decode(files.read_all(fd, MAX_DOCUMENT_BYTES), job_id, now)
        except NewerSchema:
            return None
        except BadDataError as error:
            self._set_aside(State.PROCESSING, name, fd, str(error))
            return None
        if job.id != job_id:
            job = replace(job, id=job_id)
        if job.next_attempt > number:
            self._roll_forward(name, job)
            return Recovered(job=job, attempt=number, lost=False)
        attempt = Attempt(
            number=number,
            worker=self._worker_of(job_id, number),
            started_at=datetime.fromtimestamp(os.fstat(fd).st_mtime, UTC),
            finished_at=now,
            duration_seconds=None,
            exit_code=None,
            signal=None,
            outcome=Outcome.LOST,
            log=log_name(job_id, number),
        )
        job = decide(job, attempt)
        recorded_fd = self._record_in_place(State.PROCESSING, name, job)
        try:
            self._roll_forward(name, job)
        finally:
            os.close(recorded_fd)
        return Recovered(job=job, attempt=number, lost=True)

    # --- workers and the request to stop them ---

    def register(self, name: str, now: datetime) -> None:
        """Write this process's record and keep it locked; see Store.register."""
        import socket

        record = WorkerRecord(name=name, pid=os.getpid(), host=socket.gethostname(), since=now)
        with self._telling(f"{self.location}/workers/{name}.json cannot be written"):
            temporary = self._temporary(name)
            fd = files.write_synced(
                self._fd("tmp"), temporary, self._record_text(record), sync=False
            )
            files.lock(fd)
            os.rename(
                temporary,
                filed_name(name),
                src_dir_fd=self._fd("tmp"),
                dst_dir_fd=self._fd("workers"),
            )
        self._worker = (fd, record)

    @staticmethod
    def _record_text(record: WorkerRecord) -> bytes:
        document = {
            "name": record.name,
            "pid": record.pid,
            "host": record.host,
            "since": format_instant(record.since),
            "job": record.job,
            "attempt": record.attempt,
        }
        # Of one size, so that it can be written over by one call.
        return json.dumps(document).ljust(_RECORD_BYTES - 1).encode() + b"\n"

    def _tell_record(self, job_id: str | None, attempt: int | None) -> None:
        """Write into this worker's record what it runs; nobody's safety depends on it."""
        if self._worker is None:
            return
        fd, record = self._worker
        record = replace(record, job=job_id, attempt=attempt, since=utc_now())
        self._worker = (fd, record)
        os.pwrite(fd, self._record_text(record), 0)

    def unregister(self) -> None:
        """Remove this process's record; see Store.unregister."""
        if self._worker is None:
            return
        fd, record = self._worker
        with suppress(FileNotFoundError):  # a hand was faster
            os.unlink(filed_name(record.name), dir_fd=self._fd("workers"))
        os.close(fd)
        self._worker = None

    def workers(self) -> list[WorkerRecord]:
        """Return the records that are locked, by name; see Store.workers."""
        return sorted(
            (record for record, live in self._records() if live), key=lambda each: each.name
        )

    def _records(self) -> Iterator[tuple[WorkerRecord, bool]]:
        for name in list(self._names("workers")):
            if not name.endswith(".json"):
                continue
            fd = files.open_document(self._fd("workers"), name)
            if fd is None:
                continue
            try:
                mine = self._worker is not None and name == filed_name(self._worker[1].name)
                live = mine or not files.lock(fd)
                document = json.loads(os.pread(fd, _RECORD_BYTES, 0))
                record = WorkerRecord(
                    name=str(document["name"]),
                    pid=int(document["pid"]),
                    host=str(document["host"]),
                    since=datetime.fromisoformat(document["since"]),
                    job=document["job"],
                    attempt=document["attempt"],
                )
            except (ValueError, KeyError, TypeError):
                continue  # no record, or one that is being written at this moment
            finally:
                os.close(fd)
            yield record, live

    def _worker_of(self, job_id: str, attempt: int) -> str:
        for record, _ in self._records():
            if (record.job, record.attempt) == (job_id, attempt):
                return record.name
        return ""

    def tidy(self) -> None:
        """Remove records that nobody holds and old files in tmp/; see Store.tidy."""
        for name in list(self._names("tmp")):
            with self._locked("tmp", name) as fd:
                if fd is not None and os.fstat(fd).st_mtime < time.time() - _ABANDONED_SECONDS:
                    os.unlink(name, dir_fd=self._fd("tmp"))
        for name in list(self._names("workers")):
            with self._locked("workers", name) as fd:
                if fd is not None and name.endswith(".json"):
                    os.unlink(name, dir_fd=self._fd("workers"))

    def request_stop(self, *, now: bool) -> _Pill:
        """Write a new stop_workers file; see Store.request_stop."""
        document = {"now": now, "at": format_instant(utc_now())}
        self._write_root_file("stop_workers", (json.dumps(document) + "\n").encode())
        pill = self.stop_request()
        assert pill is not None
        return pill

    def stop_request(self) -> _Pill | None:
        """Return the stop_workers file that lies there; see Store.stop_request."""
        if self._root_fd < 0:
            return None
        if self._stop_watch is not None:
            self._stop_watch.arrivals()
        fd = files.open_document(self._root_fd, "stop_workers")
        if fd is None:
            return None
        try:
            status = os.fstat(fd)
            data = files.read_all(fd, 4096)
        finally:
            os.close(fd)
        # A hand may write the file, too: `touch stop_workers` asks for a graceful stop.
        try:
            now = bool(parse_object(data).get("now", False))
        except BadDocument:
            now = False
        return _Pill(status.st_ino, status.st_mtime_ns, now)

    def stop_fd(self) -> int | None:
        """Return the descriptor that tells of files in the store's root; see Store.stop_fd."""
        if self._stop_watch is None:
            from queuectl.store.watch import Watch

            self._stop_watch = Watch(self.location)
        return self._stop_watch.fd
