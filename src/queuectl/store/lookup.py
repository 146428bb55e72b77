"""Find jobs by the names of their files, opening only the documents that are asked for."""

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial

from queuectl.clock import from_timestamp, utc_now
from queuectl.errors import (
    AmbiguousPrefix,
    BadDataError,
    BadDocument,
    JobNotFound,
    LookAlike,
    QueuectlError,
)
from queuectl.job import (
    DEFAULT_PRIORITY,
    MAX_DOCUMENT_BYTES,
    Defaults,
    Job,
    State,
    encode_job_to_run,
    job_from_document,
    new_job_from,
    parse_object,
)
from queuectl.store import files
from queuectl.store.base import (
    FINISHED,
    IN_ORDER,
    Counts,
    Entry,
)
from queuectl.store.looking import Looking
from queuectl.store.names import (
    PENDING_ID_AT,
    SUFFIX,
    blocked_name,
    due_text,
    filed_name,
    is_pending_name,
    is_stranger,
    looks_pending,
    parse_blocked,
    parse_due,
    parse_filed,
    parse_processing,
    pending_due,
    pending_id,
    pending_priority,
)

_FEW_IDS = 16
_LOOKS = 8
_LARGE_BYTES = MAX_DOCUMENT_BYTES // 64  # none below that grows to what is not read
# What a document must hold so that no default is needed to read it, and defaults to read it with.
_LIMITS = ("max_retries", "timeout", "priority", "cwd", "created_at", "updated_at", "run_at")
_COMPLETE = Defaults(
    max_retries=0, timeout_seconds=None, priority=0, cwd="/", now=datetime.min.replace(tzinfo=UTC)
)
_DUE, _NOT_DUE = "0", "1"  # what a text begins with that puts a name in the order of running


class Lookup(Looking):
    """Answer what is in the store."""

    # --- where jobs are: the one walk through the states ---

    def _search(
        self, ids: Collection[str], except_pending: str = ""
    ) -> dict[str, tuple[State, str]]:
        """Return state and file name of each of the ids that exists; none is missed.

        ``except_pending`` is a name in pending/ that does not count.
        """
        # An id that is none must not become a path.
        wanted = {job_id for job_id in ids if parse_filed(filed_name(job_id)) is not None}
        return self._look(
            lambda: self._walk(wanted, except_pending), lambda found: len(found) == len(wanted)
        )

    def _walk(self, ids: Collection[str], except_pending: str) -> dict[str, tuple[State, str]]:
        left = set(ids)
        found: dict[str, tuple[State, str]] = {}
        for state in IN_ORDER:
            if not left:
                break
            if state in FINISHED:
                fd = self._dir_fds.get(state)
                for job_id in list(left):
                    name = filed_name(job_id)
                    if fd is not None and self._exists(fd, name) and self._is_called(state, name):
                        found[job_id] = state, name
                        left.discard(job_id)
                continue
            for job_id, name in self._identified_as(state, frozenset(left)):
                # Two may be of one id, one of which was dropped there by hand.
                if job_id in left and (state is not State.PENDING or name != except_pending):
                    found[job_id] = state, name
                    left.discard(job_id)
                    if not left:
                        break  # of very many
        return found

    @cached_property
    def _ignores_case(self) -> bool:
        """Return whether the file system takes Job.json for job.json, as on macOS."""
        try:
            found = os.stat(State.PENDING.upper(), dir_fd=self._root_fd)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._fd(State.PENDING)))

    def _is_called(self, state: State, name: str) -> bool:
        """Return whether a file that is found under a name has that name."""
        return not self._ignores_case or name in self._names(state)

    def _refuse_look_alikes(self, ids: Collection[str]) -> None:
        """Refuse new ids that the file system does not tell from each other, or from a job's.

        The files of both jobs would have one name as soon as they run. Raises: LookAlike.
        """
        if not self._ignores_case:
            return
        known: dict[str, str] = {}
        for job_id in ids:
            other = known.setdefault(job_id.lower(), job_id)
            if other != job_id:
                raise LookAlike(job_id, other)
        for state in IN_ORDER:
            for other, _ in self._identified(state):
                job_id = known.get(other.lower(), other)
                if job_id != other:
                    raise LookAlike(job_id, other)

    def _states_of(self, ids: Collection[str]) -> dict[str, State]:
        """Return where each of the ids is that exists."""
        return {job_id: state for job_id, (state, _) in self._search(frozenset(ids)).items()}

    def _identified_as(self, state: State, ids: Collection[str]) -> Iterator[tuple[str, str]]:
        """Stream id and name of those jobs in a state that have one of the ids."""
        if state is not State.PENDING or len(ids) > _FEW_IDS:
            yield from (each for each in self._identified(state) if each[0] in ids)
            return
        # Of very many pending names nearly none is wanted, and how a name ends is seen at once.
        ends = tuple(map(filed_name, ids))
        for name in self._names(state):
            if name.endswith(ends):
                is_placed = looks_pending(name)
                job_id = pending_id(name) if is_placed else name[:-5]
                if job_id in ids and (is_placed or self._is_dropped(name)):
                    yield job_id, name

    def _identified(self, state: State) -> Iterator[tuple[str, str]]:
        """Stream id and name of each job in a state."""
        if state is State.BLOCKED:
            for parent in self._parents():
                for job_id in self._children(parent):
                    yield job_id, blocked_name(parent, job_id)
            return
        for name in self._names(state):
            if state is State.PENDING:
                if looks_pending(name) and name.endswith(".json"):
                    yield pending_id(name), name
                elif self._is_dropped(name):
                    yield name[:-5], name
            elif state is State.PROCESSING:
                parsed = parse_processing(name)
                if parsed is not None and self._is_document(state, name):
                    yield parsed[0], name
            else:
                filed = parse_filed(name)
                if filed is not None:
                    yield filed, name

    def _is_document(self, state: State, name: str) -> bool:
        """Tell whether a name is that of a document; anything else is never waited for."""
        with self._telling(f"{self.location}/{state}/{name} cannot be opened"):
            fd = files.open_document(self._fd(state), name)
        if fd is None:
            return False
        os.close(fd)
        return True

    def _children(self, parent: str) -> Iterator[str]:
        """Stream the ids of the jobs in blocked/PARENT. Raises: UnsafeStore."""
        fd = self._open_parent(parent)
        if fd is None:
            return
        try:
            with (
                self._telling(f"{self.location}/{State.BLOCKED}/{parent} cannot be read"),
                os.scandir(fd) as found,
            ):
                for entry in found:
                    job_id = parse_filed(entry.name)
                    if job_id is not None:
                        yield job_id
        finally:
            os.close(fd)

    def _open_parent(self, parent: str) -> int | None:
        """Open blocked/PARENT, None where there is no such directory. Raises: UnsafeStore."""
        path = f"{self.location}/{State.BLOCKED}/{parent}"
        with self._telling(f"{path} cannot be opened"):
            return files.open_subdirectory(self._fd(State.BLOCKED), parent, path)

    def _end_of(self, job_id: str) -> State | None:
        """Return in which way a job has ended, None where it has not, or there is no such job."""
        for state in FINISHED:
            fd = self._dir_fds.get(state)
            if fd is not None and self._exists(fd, filed_name(job_id)):
                return state
        return None

    def _release_children(self, ended: Collection[str]) -> None:
        """Let those jobs go on that wait for jobs that have just ended; one call where none do."""
        blocked_fd = self._fd(State.BLOCKED)
        # A directory has two links, and one for each directory in it where the file system counts.
        if not ended or os.fstat(blocked_fd).st_nlink == 2:
            return
        for job_id in ended:
            if self._exists(blocked_fd, job_id):
                from queuectl.store.blocked import Blocked

                # What cannot be done now, the sweep of idle workers repeats, and tells why.
                with suppress(QueuectlError, OSError):
                    Blocked(self).release(job_id)

    def find(self, job_ids: Collection[str]) -> dict[str, Entry]:
        """Return where jobs are, by their ids; see Store.find."""
        found = self._search(frozenset(job_ids))
        return {job_id: self._entry(*place, None) for job_id, place in found.items()}

    def _locate(self, job_id: str, except_pending: str = "") -> tuple[State, str] | None:
        """Return where a job is and its file's name, None if there is no such job."""
        return self._search({job_id}, except_pending).get(job_id)

    def get(self, job_id: str) -> Job:
        """Return a job, its ``state`` being where it is; see Store.get."""
        job = None
        if parse_filed(filed_name(job_id)) is not None:
            job = self._look(lambda: self._read_where_it_is(job_id), lambda job: job is not None)
        if job is None:
            raise JobNotFound(f"no such job: {job_id}")
        return job

    def _read_where_it_is(self, job_id: str) -> Job | None:
        """Return a job that may move on while it is looked for, None if it is not met."""
        for _ in range(_LOOKS):  # more than it can move on before it has to come back
            located = self._walk({job_id}, "").get(job_id)
            if located is None:
                return None
            job = self._read(*located, job_id)
            if job is not None:
                return job
        return None

    def _read(self, state: State, name: str, job_id: str) -> Job | None:
        """Return the job in a file, None where it is gone. Raises: BadDocument naming the file."""
        with self._telling(f"{self.location}/{state}/{name} cannot be read"):
            fd = files.open_document(self._fd(state), name)
        if fd is None:
            if self._exists(self._fd(state), name):
                raise BadDocument(f"{self.location}/{state}/{name} is no regular file of yours")
            return None
        try:
            with self._telling(f"{self.location}/{state}/{name} cannot be read"):
                data = files.read_all(fd, MAX_DOCUMENT_BYTES)
                # RACE: a file that was settled takes another job's document, maybe while it is
                # read: test_file_that_takes_another_document_while_it_is_read.
                if not files.names_inode(self._fd(state), name, os.fstat(fd)):
                    return None
            job = self._decode(data, job_id, utc_now())
        except BadDataError as error:
            raise BadDocument(f"{self.location}/{state}/{name}: {error}") from error
        finally:
            os.close(fd)
        return self._as_placed(job, state, name, job_id)

    @staticmethod
    def _as_placed(job: Job, state: State, name: str, job_id: str) -> Job:
        """Return the job as its place tells: the name decides about what stands in it."""
        run_at, priority = job.run_at, job.priority
        if state is State.PENDING and is_pending_name(name):
            run_at, priority = parse_due(pending_due(name)), pending_priority(name)
        if (job.id, job.state, job.priority, job.run_at) == (job_id, state, priority, run_at):
            return job  # as nearly all
        return job._replace(id=job_id, state=state, priority=priority, run_at=run_at)

    def _defaults(self, now: datetime) -> Defaults:
        return self.settings().of_a_new_job(files.home_directory() or "/", now)

    def _decode(self, data: bytes, job_id: str, now: datetime) -> Job:
        """Return the job in a document; what a foreign producer left out comes from the config."""
        job = new_job_from(data)
        if job is not None:
            return job
        document = parse_object(data)
        # One that was recorded holds its limits; where it has no rule, there is to be none.
        complete = all(key in document for key in _LIMITS)
        return job_from_document(document, job_id, _COMPLETE if complete else self._defaults(now))

    def _decode_to_run(self, data: bytes, job_id: str, now: datetime) -> Job:
        """Return the job in a document that is to be written again with an attempt.

        Raises: as _decode, and BadDocument where it would be too long then.
        """
        job = self._decode(data, job_id, now)
        if len(data) > _LARGE_BYTES:
            # It may be longer as it is written here: [1,1] becomes [1, 1].
            encode_job_to_run(job.shortened())
        return job

    def resolve(self, prefix: str) -> Entry:
        """Return the job whose id is ``prefix`` or, alone, starts with it; see Store.resolve."""
        if not prefix:
            raise JobNotFound("no such job: the id is empty")
        # An exact id wins, and what starts with a prefix is one of several where another does.
        ids, place = self._look(lambda: self._matching(prefix), lambda found: prefix in found[0])
        if place is None:
            raise JobNotFound(f"no such job: {prefix}")
        if len(ids) > 1 and prefix not in ids:
            some = sorted(ids)[:10]
            more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
            raise AmbiguousPrefix(f"{prefix!r} is ambiguous: {', '.join(some)}{more}")
        return self._entry(*place, None)

    def _matching(self, prefix: str) -> tuple[set[str], tuple[State, str] | None]:
        """Return the ids that start with a prefix, and where the first of them is.

        That whose id it is comes alone.
        """
        ids: set[str] = set()
        first: tuple[State, str] | None = None
        for state in IN_ORDER:
            for job_id, name in self._with_prefix(state, prefix):
                if job_id == prefix:
                    return {job_id}, (state, name)
                ids.add(job_id)
                first = first or (state, name)
        return ids, first

    def entries(self, state: State, now: datetime, limit: int | None = None) -> list[Entry]:
        """Return what the names tell of the jobs in a state, in order; see Store.entries."""
        from heapq import nlargest, nsmallest

        if limit is None:
            return list(self.all_entries(state, now))
        if state is State.PENDING:
            return list(self._pending_entries(nsmallest(limit, self._order_keys(now))))
        return list(self._timed_entries(state, nlargest(limit, self._timed(state))))

    def all_entries(self, state: State, now: datetime) -> Collection[Entry]:
        """Return the same of all jobs in a state, in little memory; see Store.all_entries."""
        from queuectl.packed import Made, Sorter

        if state is State.PENDING:
            return Made(Sorter(self._order_keys(now)), self._pending_entries)
        timed = Sorter(self._timed(state), reverse=True)
        return Made(timed, partial(self._timed_entries, state))

    def _order_keys(self, now: datetime) -> Iterator[str]:
        """Yield for each job in pending/ a text: their order is that of running."""
        due_by = due_text(now)
        for name in self._names(State.PENDING):
            if looks_pending(name) and name[2:25] <= due_by:
                yield _DUE + name
            elif is_pending_name(name):
                yield _NOT_DUE + name[2:25] + name
            elif self._is_dropped(name):
                yield f"{_DUE}{DEFAULT_PRIORITY}-{due_by}/{name}"

    def _pending_entries(self, order_keys: Iterable[str]) -> Iterator[Entry]:
        for key in order_keys:
            name = key[24:] if key.startswith(_NOT_DUE) else key[1:].rpartition("/")[2]
            if is_pending_name(name) or is_stranger(name):
                yield self._entry(State.PENDING, name, None)

    def _timed_entries(self, state: State, timed: Iterable[tuple[float, str]]) -> Iterator[Entry]:
        return (self._entry(state, name, changed) for changed, name in timed)

    def _is_dropped(self, name: str) -> bool:
        """Tell whether a name in pending/ is that of a document that is going to be adopted."""
        if not is_stranger(name):
            return False
        try:
            status = os.stat(name, dir_fd=self._fd(State.PENDING), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode)

    def _timed(self, state: State) -> Iterator[tuple[float, str]]:
        fd = self._dir_fds.get(state)
        if fd is None:
            return
        for _, name in self._identified(state):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                what = f"{self.location}/{state}/{name} cannot be looked at"
                raise files.as_store_error(error, what) from error
            yield status.st_mtime, name

    def _entry(self, state: State, name: str, changed: float | None) -> Entry:
        changed_at = None if changed is None else from_timestamp(changed)
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
        if state is State.BLOCKED:
            under, job_id = parse_blocked(name)
            return Entry(
                id=job_id,
                state=state,
                parent=under,
                parent_state=self._end_of(under),
                changed_at=changed_at,
                token=name,
            )
        return Entry(id=name[:-5], state=state, changed_at=changed_at, token=name)

    def read(self, entry: Entry) -> Job | None:
        """Return the job of an entry, None where it has moved on; see Store.read."""
        return self._read(entry.state, entry.token, entry.id)

    def ids(self, state: State, prefix: str = "") -> Iterator[str]:
        """Stream the ids in a state that start with a prefix; see Store.ids."""
        return (job_id for job_id, _ in self._with_prefix(state, prefix))

    def _with_prefix(self, state: State, prefix: str) -> Iterator[tuple[str, str]]:
        """Stream id and name of the jobs in a state whose ids start with a prefix."""
        if state in (State.BLOCKED, State.PROCESSING):
            yield from (each for each in self._identified(state) if each[0].startswith(prefix))
            return
        # A name is looked at whole only where it can be of such an id: a long queue has many.
        for name in self._names(state):
            if name.startswith(prefix, PENDING_ID_AT) or name.startswith(prefix):
                job_id = self._id_in(state, name)
                if job_id is not None and job_id.startswith(prefix):
                    yield job_id, name

    def _id_in(self, state: State, name: str) -> str | None:
        """Return the id of the job that a name in pending/ or in a final state is of, or None."""
        if state is not State.PENDING:
            return parse_filed(name)
        if is_pending_name(name):
            return pending_id(name)
        return parse_filed(name) if self._is_dropped(name) else None

    def counts(self, now: datetime) -> Counts:
        """Count the jobs by the names of their files."""
        by_state = dict.fromkeys(State, 0)
        due_by = due_text(now)
        by_state[State.BLOCKED] = sum(1 for _ in self._identified(State.BLOCKED))
        pending = due = 0  # an enum as a key takes as long as the rest of a name
        oldest = next_due = ""
        for name in self._names(State.PENDING):
            # As looks_pending does, whose call would be most of the cost.
            if name[24:26] == "Z-" and name[1:2] == "-" and name.endswith(SUFFIX):
                at = name[2:25]
                if at <= due_by:
                    due += 1
                    if not oldest or at < oldest:
                        oldest = at
                elif not next_due or at < next_due:
                    next_due = at
            elif not self._is_dropped(name):
                continue
            else:
                due += 1
            pending += 1
        by_state[State.PENDING] = pending
        for state in IN_ORDER[2:]:
            by_state[state] = sum(1 for _ in self._identified(state))
        return Counts(
            by_state=by_state,
            due=due,
            oldest_due=parse_due(oldest) if oldest else None,
            next_due=parse_due(next_due) if next_due else None,
            unreadable=sum(1 for name in self._names("corrupt") if name.endswith(".json")),
        )
