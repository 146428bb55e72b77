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
8. Recovery. Whoever can take the lock of a document in processing/ settles it, unless a process
   was started as the command of its attempt: one may have closed the lock that it inherited.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from queuectl.clock import from_timestamp, later, utc_now
from queuectl.errors import (
    BadDataError,
    ConfigError,
    DuplicateId,
    JobNotFound,
    QueuectlError,
    StoreError,
    WrongState,
)
from queuectl.job import (
    DEFAULT_PRIORITY,
    MAX_DOCUMENT_BYTES,
    Attempt,
    Job,
    NewerSchema,
    Outcome,
    State,
    check_id,
    encode_job,
)
from queuectl.logs import log_name
from queuectl.policy import retried
from queuectl.store import files
from queuectl.store.adding import Adding
from queuectl.store.base import (
    FINISHED,
    Claim,
    Decide,
    Progress,
    Recovered,
    RecoveryReport,
)
from queuectl.store.cancel import Cancelling, StillRuns
from queuectl.store.ends import Ends
from queuectl.store.finished import Finished
from queuectl.store.names import (
    SUFFIX,
    due_text,
    filed_name,
    is_pending_name,
    is_stranger,
    looks_pending,
    parse_due,
    parse_processing,
    pending_id,
    pending_name,
    processing_name,
)
from queuectl.store.place import LOCK_FD_IN_COMMAND
from queuectl.store.spares import Spares

if TYPE_CHECKING:
    from queuectl.store.blocked import Blocked
    from queuectl.store.listing import Listing, Slice
    from queuectl.store.watch import Watch

_STILL_BEING_WRITTEN_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 1.0
_ADOPTED_AT_ONCE = 200  # so many are moved while pending.lock is held, then others have a turn
_MANY = 16  # from so many files on, one sync of the file system is cheaper than one for each
_LONGEST_BASE = 90  # an id that gets a number is cut to this, so that it stays one
_PARTS = 256  # of 64 KiB: more than the kernel holds of arrivals, unless it was set up for it
_SET_BACK_SECONDS = 10.0  # below that, waiting it out costs less


@dataclass(slots=True, kw_only=True, eq=False)
class _HeldClaim(Claim):
    """Hold the locked descriptor of a claimed document, and what was already done to settle it."""

    fd: int
    name: str
    came_from: str
    recorded_fd: int = -1

    def free(self) -> None:
        """Let the lock of the document go, and that of its successor."""
        for fd in (self.recorded_fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.recorded_fd = -1


class DirectoryStore(Adding, Finished, Ends, Cancelling):
    """Keep jobs in a directory of a local file system."""

    poll_seconds = 0.25
    _slice: "Slice | None" = None
    _listing: "Listing | None" = None
    _watch: "Watch | None" = None
    _watches: "tuple[Watch, ...]" = ()  # of all workers of the pool, by this process's copies
    _next_watch = 0
    _spares: Spares | None = None
    _syncer: files.Syncer | None = None
    _clock_seen: tuple[str | None, float] | None = None

    def close(self) -> None:
        """Free what the store holds open."""
        self._close_watches()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._slice is not None:
            self._slice.close()
            self._slice = None
        self._listing = None
        if self._spares is not None:
            self._spares.leave()
            self._spares = None
        super().close()

    # --- what people and scripts do ---

    def add(
        self,
        jobs: Collection[Job],
        *,
        chosen: Collection[str] = (),
        skip_existing: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Make new jobs durable, then visible in their order; see Store.add."""
        parents = {each for job in jobs for each in job.parents}
        if not chosen and not parents:
            return self.add_new(jobs, progress)
        chosen = frozenset(chosen)
        with self._moving_into_pending():
            if chosen:
                self._refuse_look_alikes(chosen)
                self._sync_ends()
            found = self._states_of(chosen | parents if parents else chosen)
            present = found.keys() & chosen
            if present and not skip_existing:
                first = next(job.id for job in jobs if job.id in present)
                raise DuplicateId(first, found[first])
            new = jobs
            if present:
                from queuectl.packed import Packed

                new = Packed(job for job in jobs if job.id not in present)
            blocked = self._blocked() if parents else None
            places = blocked.places(new, found) if blocked is not None else {}
            self._publish(new, progress, places, blocked, chosen=chosen)
            if blocked is not None:
                blocked.look_again(places, found)
        return [job.id for job in jobs]

    def _sync_ends(self) -> None:
        # An id may be free because its job was purged a moment ago: a power failure that undid that
        # and not the adding would leave two jobs of one id.
        with self._telling(f"{self.location} cannot be synced"):
            for state in FINISHED:
                files.sync_directory(self._fd(state))

    def _blocked(self) -> "Blocked":
        from queuectl.store.blocked import Blocked

        return Blocked(self)

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
                # RACE: a hand, which takes no lock, has removed it; see
                # test_retry_of_a_job_that_a_hand_removes_is_refused.
                if job is None:
                    raise JobNotFound(f"no such job: {job_id}")
                job = retried(job, now)
                self._make_arrivals_durable(state)
                if job.after or job.after_any:
                    return self._blocked().retry(state, name, job)
                recorded_fd = self._record_in_place(state, name, job)
                try:
                    self._move_back_durably(state, name, self._name_in_pending(job))
                finally:
                    os.close(recorded_fd)
        return job

    # --- what workers do: claim ---

    def check_pool(self) -> None:
        """Check that a command can be given its lock (rule 4); see Store.check_pool."""
        most = os.sysconf("SC_OPEN_MAX")
        if 0 <= most <= LOCK_FD_IN_COMMAND:
            raise StoreError(
                f"a worker needs {LOCK_FD_IN_COMMAND + 1} file descriptors at least, and may have"
                f" {most}: raise the limit (ulimit -n)"
            )

    def prepare_pool(self, count: int = 0) -> None:
        """Reserve the memory of a shared scan, and load what each worker would load for itself.

        The watches of those that start together begin here, before the first of them scans, so that
        one scan does for all.
        """
        from queuectl.store.listing import Slice
        from queuectl.store.watch import Watch

        self.name_pool()
        files.load_library()
        self._waits_in_kernel = True
        with self._telling(f"{self.location} cannot be worked on"):
            self._slice = Slice()
        path = os.path.join(self.location, "pending")
        self._watches = tuple(Watch(path) for _ in range(count))
        self._next_watch = 0

    def prepare_worker(self) -> object:
        """Hand the next watch to the process that is forked next; see Store.prepare_worker."""
        self._watch = None
        if self._next_watch < len(self._watches):
            self._watch = self._watches[self._next_watch]
            self._next_watch += 1
        return self._watch

    def leave_pool(self) -> None:
        """Forget what is watched for this process alone; see Store.leave_pool."""
        if self._watch is not None:
            self._watch.forget()  # so that the kernel is done with it when end_pool closes it

    def end_worker(self, share: object) -> None:
        """End the watch of a process that is gone; see Store.end_worker."""
        from queuectl.store.watch import end_watches

        end_watches([each for each in self._watches if each is share])

    def end_pool(self) -> None:
        """End all that is watched; see Store.end_pool."""
        from queuectl.store.watch import end_watches

        end_watches([*self._watches, *filter(None, [self._stop_watch])])
        self._watch, self._watches, self._stop_watch = None, (), None

    def _worklist(self) -> "Listing":
        if self._listing is None:
            from queuectl.store.listing import Listing, Slice
            from queuectl.store.watch import Watch

            if self._slice is None:
                with self._telling(f"{self.location} cannot be worked on"):
                    self._slice = Slice()
            self._listing = Listing(lambda: self._reopen("pending"), self._slice)
            self._close_watches()  # but for its own
            self._forget_turn_to_end()
            if self._watch is None:
                # Watch before the scan, so that what comes during it is told. A new scan, since a
                # worker that died may have held a name, and since none was told what came before.
                self._watch = Watch(os.path.join(self.location, "pending"))
                self._listing.invalidate()
        return self._listing

    def _close_watches(self) -> None:
        for watch in self._watches:
            if watch is not self._watch:
                watch.close()
        self._watches = ()

    def arrivals_fd(self) -> int | None:
        """Return the descriptor that tells of names in pending/; see Store.arrivals_fd."""
        self._worklist()
        assert self._watch is not None
        return self._watch.fd

    def arrivals_heard(self) -> int:
        """Return what changes when a claim hears of arrivals; see Store.arrivals_heard."""
        return 0 if self._watch is None else self._watch.times_told

    def running(self) -> bool:
        """Return whether a worker of this pool runs a job; see Store.running."""
        self._worklist()
        assert self._watch is not None
        self._watch.add_departures(os.path.join(self.location, State.PROCESSING))
        is_busy = self._pool_is_busy()
        if not is_busy:
            self._watch.look_now()  # the next claim may be the last one, and must miss nothing
        return is_busy

    def next_due(self) -> datetime | None:
        """Return when the next known name is due; see Store.next_due."""
        due = self._worklist().next_due()
        return None if due is None else parse_due(due)

    def claim_each(self, now: datetime, workers: Sequence[str]) -> list[Claim]:
        """Take the first due jobs, one for each worker; see Store.claim_each."""
        worklist = self._worklist()
        due_by = due_text(now)
        claims: list[Claim] = []
        try:
            with self._telling(f"{self.location}/pending cannot be read"):
                self._take_in_arrivals(worklist, now)
                while (most := len(workers) - len(claims)) > 0:
                    names = worklist.take(due_by, most)
                    if worklist.strangers:
                        self._adopt_strangers(worklist, now)
                        for name in names:
                            worklist.arrived(name, due_by)  # an adopted one may be first
                    elif not names and not self._clock_was_set_back(worklist, now):
                        break
                    else:
                        self._claim_names(names, now, workers, claims)
        except QueuectlError:
            # What was handed out, or arrived, and was not claimed is found by a new scan.
            worklist.invalidate()
            if not claims:
                raise
        return claims

    def _claim_names(
        self, names: Sequence[str], now: datetime, workers: Sequence[str], claims: list[Claim]
    ) -> None:
        """Add to the claims what of the names can be claimed, each for the next worker."""
        for name in names:
            if not is_pending_name(name):
                self._adopt([name], now)  # it was torn at the first look
            elif (claim := self._claim_name(name, now, workers[len(claims)])) is not None:
                claims.append(claim)

    def _clock_was_set_back(self, worklist: "Listing", now: datetime) -> bool:
        """Tell whether jobs are due, though none was, since the clock was set back; see SetBack."""
        soonest = worklist.soonest()
        while soonest is not None and not self._exists(self._fd(State.PENDING), soonest):
            worklist.forget(soonest)  # it is gone, and would hide those that tell of the clock
            soonest = worklist.soonest()
        if worklist.has_lost_the_soonest():
            worklist.invalidate()
            return True
        # What the wall clock is ahead of one that is never set.
        ahead = now.timestamp() - time.monotonic()
        seen, self._clock_seen = self._clock_seen, (soonest, ahead)
        was_set_back = seen is not None and ahead < seen[1] - _SET_BACK_SECONDS
        if was_set_back:
            worklist.forget_put_off()
        elif soonest is None or (seen is not None and seen[0] == soonest):
            return False
        from queuectl.store.setback import SetBack

        set_back = SetBack(self)
        # What is known to wait may all be gone, and what waits not be known.
        if was_set_back or (soonest is not None and set_back.is_proved_by(soonest, now)):
            set_back.put_right(now)
            worklist.invalidate()
            return True
        return False

    def _adopt_strangers(self, worklist: "Listing", now: datetime) -> None:
        strangers, worklist.strangers = worklist.strangers, []
        self._adopt(strangers, now)
        if worklist.more_strangers:
            worklist.invalidate()

    def _take_in_arrivals(self, worklist: "Listing", now: datetime) -> None:
        assert self._watch is not None
        # In parts, so that memory does not depend on how many came: all that the kernel holds.
        for _ in range(_PARTS):
            arrivals = self._watch.arrivals(worklist.look_at())
            if arrivals is None:
                worklist.invalidate(time.monotonic())
            if not arrivals:
                return
            self._take_in(arrivals, worklist, now)

    def _take_in(self, arrivals: Sequence[str], worklist: "Listing", now: datetime) -> None:
        strangers = []
        due_by = due_text(now)
        for name in arrivals:
            worklist.left_alone.discard(name)
            if is_pending_name(name):
                worklist.arrived(name, due_by)
            elif is_stranger(name):
                strangers.append(name)
        self._adopt(strangers, now)

    def _claim_name(self, name: str, now: datetime, worker: str) -> Claim | None:
        """Claim one pending document (rule 3), or say when to look at it again."""
        try:
            locked = self._lock_waiting(name, now)
            if locked is None:
                return None
            fd, status = locked
            keep = False
            try:
                job = self._read_pending(fd, name, now)
                if job is None:
                    return None
                attempt = job.next_attempt
                running = processing_name(job.id, attempt)
                if job.history or job.after or job.after_any:
                    # It has come from elsewhere; see _make_arrivals_durable.
                    files.sync_directory(self._fd("pending"))
                try:
                    keep = self._take(fd, status, name, running)
                except FileExistsError:
                    # A second document of a job that runs, put here by a hand.
                    self._look_again(name, later(now, _LOOK_AGAIN_SECONDS))
                    return None
                if not keep:
                    return None
            finally:
                if not keep:
                    os.close(fd)
        except OSError as error:
            what = f"{self.location}/pending/{name} cannot be claimed"
            raise files.as_store_error(error, what) from error
        self._tell_record(worker, (job.id, attempt), now)
        return _HeldClaim(
            worker=worker,
            job=job,
            attempt=attempt,
            started_at=now,
            pass_fds=((fd, LOCK_FD_IN_COMMAND),),
            fd=fd,
            name=running,
            came_from=name,
        )

    def _take(self, fd: int, status: os.stat_result, name: str, running: str) -> bool:
        """Move a locked document from pending/ to processing/; False where a hand was faster.

        Raises: FileExistsError where one of that name runs; OSError.
        """
        pending_fd, processing_fd = self._fd("pending"), self._fd("processing")
        try:
            files.move_new(pending_fd, name, processing_fd, running)
        except FileNotFoundError:
            # RACE: a hand, which takes no lock, has moved or removed it; see
            # test_hand_that_moves_a_document_while_it_is_claimed.
            return False
        is_taken = False
        try:
            # RACE: a hand may have put another file there between check and rename; see
            # test_hand_that_replaces_a_document_while_it_is_claimed.
            if files.names_inode(processing_fd, running, status):
                os.utime(fd)
                is_taken = True
        finally:
            if not is_taken:  # it has not run, so it is not a lost attempt
                with ExitStack() as held:
                    with suppress(StoreError):  # better without the lock (rule 7) than not at all
                        held.enter_context(self._moving_into_pending())
                    os.rename(running, name, src_dir_fd=processing_fd, dst_dir_fd=pending_fd)
        return is_taken

    def _lock_waiting(self, name: str, now: datetime) -> tuple[int, os.stat_result] | None:
        """Lock a document of pending/ (rule 2); where that cannot be, say when to look again."""
        opened = files.open_and_stat(self._fd("pending"), name)
        if opened is None:
            if self._exists(self._fd("pending"), name):
                self._worklist().left_alone.add(name)
            return None
        fd, status = opened
        held = False
        try:
            if not files.lock(fd):
                self._look_again(name, later(now, _LOOK_AGAIN_SECONDS))
            else:
                # RACE: between open and lock another worker may have moved the document on; see
                # test_document_that_was_not_locked_is_never_moved.
                held = files.names_inode(self._fd("pending"), name, status)
        finally:
            if not held:
                os.close(fd)
        return opened if held else None

    def _look_again(self, name: str, at: datetime) -> None:
        self._worklist().again(name, due_text(at))

    def _read_pending(self, fd: int, name: str, now: datetime) -> Job | None:
        """Return the job in a locked document of pending/; None where it cannot be run now."""
        try:
            job = self._decode_to_run(files.read_all(fd, MAX_DOCUMENT_BYTES), pending_id(name), now)
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
        self._move_to_corrupt(state, name, reason)

    def _adopt(self, names: Collection[str], now: datetime) -> None:
        """Give files that were dropped into pending/ their places in the order, many at once."""
        ordered = sorted(set(names))
        for start in range(0, len(ordered), _ADOPTED_AT_ONCE):
            self._adopt_in_halves(ordered[start : start + _ADOPTED_AT_ONCE], now)

    def _adopt_in_halves(self, names: Sequence[str], now: datetime) -> None:
        try:
            self._adopt_some(names, now)
        except StoreError:
            if len(names) == 1:
                raise
            # Each holds two descriptors, and there may not be so many. One at a time would cost a
            # look through the queue for each.
            middle = len(names) // 2
            self._adopt_in_halves(names[:middle], now)
            self._adopt_in_halves(names[middle:], now)

    def _adopt_some(self, names: Sequence[str], now: datetime) -> None:
        held: list[tuple[str, int, Job]] = []
        try:
            with self._telling(f"{self.location}/pending/{names[0]} cannot be adopted"):
                for name in names:
                    locked = self._lock_waiting(name, now)
                    if locked is None:
                        continue
                    fd, job = locked[0], None
                    try:
                        job = self._read_dropped(fd, name, now)
                    finally:
                        if job is None:
                            os.close(fd)
                    if job is not None:
                        held.append((name, fd, job))
                if held:
                    self._give_places(held, now)
        finally:
            for _, fd, _ in held:
                os.close(fd)

    def _read_dropped(self, fd: int, name: str, now: datetime) -> Job | None:
        """Return the job in a locked file, with the id that it is to have; None for no job."""
        try:
            data = files.read_all(fd, MAX_DOCUMENT_BYTES)
            job = self._decode_to_run(data, name.removesuffix(SUFFIX), now)
            check_id(job.id)
            return job
        except NewerSchema:
            self._worklist().left_alone.add(name)
        except BadDataError as error:
            self._set_aside(State.PENDING, name, fd, str(error))
        return None

    def _give_places(self, held: Sequence[tuple[str, int, Job]], now: datetime) -> None:
        """Record and rename files that are locked, each under an id that no other job has."""
        tmp_fd, pending_fd = self._fd("tmp"), self._fd("pending")
        written: list[tuple[str, str, int]] = []
        in_tmp: set[str] = set()
        adopted: list[str] = []
        try:
            with self._moving_into_pending():
                # One walk for all of them: one for each would cost the square of their number.
                fold = str.lower if self._ignores_case else str
                taken = self._ids_like({fold(job.id) for _, _, job in held}, fold)
                ids = _FreeIds(taken, self._end_of, fold)
                for name, _, job in held:
                    placed = job._replace(
                        id=ids.take(job.id, name),
                        state=State.PENDING,
                        priority=DEFAULT_PRIORITY,
                        run_at=now,
                        updated_at=now,
                    )
                    temporary = self._temporary("adopt")
                    fd = files.write_synced(tmp_fd, temporary, encode_job(placed), sync=False)
                    written.append((temporary, self._name_in_pending(placed), fd))
                    in_tmp.add(temporary)
                    files.lock(fd)  # as long as it is, none can claim it
                if len(written) < _MANY or not files.sync_file_system(tmp_fd):
                    files.sync_each([fd for _, _, fd in written], tmp_fd)
                for (name, fd, _), (temporary, placed_as, _) in zip(held, written, strict=True):
                    # RACE: a hand, which takes no lock, has removed it meanwhile; see
                    # test_hand_that_removes_a_file_while_it_is_adopted.
                    if files.names_inode(pending_fd, name, os.fstat(fd)):
                        os.rename(temporary, name, src_dir_fd=tmp_fd, dst_dir_fd=pending_fd)
                        in_tmp.remove(temporary)
                        with suppress(FileNotFoundError):
                            os.rename(name, placed_as, src_dir_fd=pending_fd, dst_dir_fd=pending_fd)
                            adopted.append(placed_as)
                files.sync_directory(pending_fd)
        finally:
            for _, _, fd in written:
                os.close(fd)
            for temporary in in_tmp:
                with suppress(OSError):  # what stays in tmp/ is tidied away a day later
                    os.unlink(temporary, dir_fd=tmp_fd)
        for name in adopted:
            self._worklist().arrived(name, due_text(now))

    def _ids_like(self, ids: Collection[str], fold: Callable[[str], str]) -> dict[str, set[str]]:
        """Return which of the ids, plain or numbered, have not ended, each with its files.

        ``fold`` gives ids that the file system does not tell apart one text, which is compared.
        """
        bases = {each[:_LONGEST_BASE] for each in ids}
        found: list[tuple[str, str]] = []

        def look(named: Iterable[tuple[str, str]]) -> None:
            for each, name in named:
                job_id = fold(each)
                if job_id in ids or job_id.rpartition("-")[0] in bases:
                    found.append((job_id, name))

        # As jobs move (rule 7). Whether a dropped file is one is asked of few: there may be many.
        look(self._identified(State.BLOCKED))
        look(
            (pending_id(name) if looks_pending(name) else name.removesuffix(SUFFIX), name)
            for name in self._names(State.PENDING)
        )
        files_of: dict[str, set[str]] = {}
        for job_id, name in found:
            if "/" in name or looks_pending(name) or self._is_dropped(name):
                files_of.setdefault(job_id, set()).add(name)
        found.clear()
        look(self._identified(State.PROCESSING))
        for job_id, name in found:
            files_of.setdefault(job_id, set()).add(name)
        return files_of

    # --- what workers do: settle, give back, recover ---

    def begin_settle(self, settlements: Sequence[tuple[Claim, Job]]) -> "_Settlement":
        """Write the new documents of claimed jobs (rule 5); see Store.begin_settle."""
        if self._spares is None or self._syncer is None:
            self._spares = Spares(self._fd("tmp"))
            self._syncer = files.Syncer()
        return _Settlement(self, self._spares, self._syncer, settlements)

    def settle(self, settlements: Sequence[tuple[Claim, Job]]) -> None:
        """Settle claimed jobs at once; see Store.settle."""
        while settlements:
            settlement = self.begin_settle(settlements)
            settlement.sync()
            settlement.finish()
            settlements = [each for each in settlements if each[0] in settlement.left]

    def synced_directories(self) -> list[int]:
        """Return the directories whose entries a settlement makes durable."""
        # What came into pending/ was made durable by who put it there, or is by who claims it.
        return [self._fd(State.PROCESSING), self._fd("tmp")]

    def has(self, claim: _HeldClaim) -> bool:
        """Tell whether a claimed job lies where it ran, and no hand has taken it away."""
        return self._exists(self._fd(State.PROCESSING), claim.name)

    def put_in_place(self, spares: Spares, written: str, running: str) -> None:
        """Put a written document in the place of a running one."""
        spares.put_in_place(written, self._fd(State.PROCESSING), running)

    def settled(self, jobs: Sequence[Job]) -> None:
        """Count what was settled, and let go on what waited for it."""
        self._count([job.history[-1] for job in jobs])
        self._release_children([job.id for job in jobs if job.state in FINISHED])

    def roll_forward(self, name: str, job: Job) -> None:
        """Move a document that is ahead of its directory to the state that it names."""
        if job.state is State.PENDING:
            with self._moving_into_pending():
                self._move(State.PROCESSING, name, State.PENDING, self._name_in_pending(job))
        else:
            self._move(State.PROCESSING, name, job.state, filed_name(job.id))

    def give_back(self, claim: Claim, due: datetime | None = None) -> None:
        """Put a claimed job back as it was by one rename; see Store.give_back."""
        assert isinstance(claim, _HeldClaim)
        name = claim.came_from
        if due is not None:
            name = pending_name(claim.job.priority, due, claim.job.id)
        with self._moving_into_pending():
            try:
                self._move(State.PROCESSING, claim.name, State.PENDING, name)
            except StoreError:
                if self.has(claim):
                    raise
        claim.free()
        self._tell_record(claim.worker, None, utc_now())

    def release_blocked(self) -> bool:
        """Let those go on whose parents' ends were missed; see Store.release_blocked."""
        return any(True for _ in self._parents()) and self._blocked().sweep()

    def recover(self, decide: Decide, *, only_lost: bool = False) -> RecoveryReport:
        """Settle the documents in processing/ that nobody holds (rule 8); see Store.recover."""
        recovered: list[Recovered] = []
        held: set[tuple[str, int]] = set()
        problems: list[str] = []
        for name in list(self._names(State.PROCESSING)):
            parsed = parse_processing(name)
            if parsed is None:
                continue
            try:
                with (
                    self._telling(f"{self.location}/{State.PROCESSING}/{name} cannot be recovered"),
                    self._locked(State.PROCESSING, name) as fd,
                ):
                    if fd is None:
                        if self._is_document(State.PROCESSING, name):
                            held.add(parsed)
                    else:
                        found = self._recover_locked(name, fd, parsed, decide)
                        if found is not None:
                            recovered.append(found)
            except StillRuns:
                held.add(parsed)
            except (ConfigError, StoreError) as error:
                problems.append(str(error))
        self._release_children([each.job.id for each in recovered if each.job.state in FINISHED])
        if any(each.lost for each in recovered):
            try:
                self._tidy_records()  # those that told who had run what was lost
            except StoreError as error:
                problems.append(str(error))
        unowned = held if held and not only_lost else set()
        if unowned:
            unowned = held - {(each.job, each.attempt) for each in self.workers()}
        return RecoveryReport(
            recovered=recovered,
            running=len(held),
            unowned=len(unowned) + len(problems),
            overdue=() if only_lost else self._end_overdue(unowned),
            problems=problems,
        )

    def _recover_locked(
        self, name: str, fd: int, parsed: tuple[str, int], decide: Decide
    ) -> Recovered | None:
        job_id, number = parsed
        now = utc_now()
        try:
            job = self._decode_to_run(files.read_all(fd, MAX_DOCUMENT_BYTES), job_id, now)
        except NewerSchema:
            return None
        except BadDataError as error:
            self._set_aside(State.PROCESSING, name, fd, str(error))
            return None
        if job.id != job_id:
            job = job._replace(id=job_id)
        if job.next_attempt > number:
            self.roll_forward(name, job)
            self._count([job.history[-1]])
            return Recovered(job=job, attempt=number, lost=False)
        if self._session_leaders(job_id, number):
            raise StillRuns
        attempt = Attempt(
            number=number,
            worker=self._worker_of(job_id, number),
            started_at=from_timestamp(os.fstat(fd).st_mtime),
            finished_at=now,
            duration_seconds=None,
            exit_code=None,
            signal=None,
            outcome=Outcome.LOST,
            log=log_name(job_id, number),
        )
        job = decide(job, attempt)
        self._make_arrivals_durable(State.PROCESSING)
        recorded_fd = self._record_in_place(State.PROCESSING, name, job)
        try:
            self.roll_forward(name, job)
        finally:
            os.close(recorded_fd)
        self._count([job.history[-1]])
        return Recovered(job=job, attempt=number, lost=True)


class _FreeIds:
    """Give ids that no job has: one that is taken gets -2, -3 and so on."""

    def __init__(
        self,
        taken: dict[str, set[str]],
        has_ended: Callable[[str], object],
        fold: Callable[[str], str],
    ) -> None:
        """Take the ids that jobs have, each with its files, and what tells of those that ended.

        ``fold`` gives ids that the file system does not tell apart one text, as in ``taken``.
        """
        self._fold = fold
        self._taken = taken
        self._has_ended = has_ended
        self._numbers: dict[str, int] = {}

    def take(self, wanted: str, name: str) -> str:
        """Return the id of the file ``name``, which itself does not count as a job that has it."""
        job_id, number = wanted, self._numbers.get(wanted, 1)
        while self._is_taken(job_id, name):
            number += 1
            job_id = f"{wanted[:_LONGEST_BASE]}-{number}"
        self._numbers[wanted] = number
        self._taken.setdefault(self._fold(job_id), set()).add("")
        return job_id

    def _is_taken(self, job_id: str, name: str) -> bool:
        others = self._taken.get(self._fold(job_id), set()) - {name}
        return bool(others) or self._has_ended(job_id) is not None


class _Settlement:
    """Be the settling of some claims on its way: record, sync, move (rule 5)."""

    def __init__(
        self,
        store: DirectoryStore,
        spares: Spares,
        syncer: files.Syncer,
        settlements: Sequence[tuple[Claim, Job]],
    ) -> None:
        self._store = store
        self._spares = spares
        self._syncer = syncer
        self._error: OSError | None = None
        self._is_synced = False
        self.gone: list[Claim] = []
        self._held: list[tuple[_HeldClaim, Job]] = []
        self._written: list[tuple[_HeldClaim, str, int]] = []
        self._what = f"{store.location}/processing cannot be written"
        self._claims = [claim for claim, _ in settlements if isinstance(claim, _HeldClaim)]
        try:
            for claim, job in settlements:
                assert isinstance(claim, _HeldClaim)
                if claim.fd < 0:
                    continue  # settled already, before an error that came later
                if claim.recorded_fd >= 0 or self._write(claim, job):
                    self._held.append((claim, job))
        except OSError as error:
            if not self._held:
                raise files.as_store_error(error, self._what) from error
            self._leave_some()

    @property
    def left(self) -> list[Claim]:
        """Return the claims that are still held; see Settlement.left."""
        return [each for each in self._claims if each.fd >= 0]

    def _leave_some(self) -> None:
        """Leave half of what was written for the next time: to finish the rest takes room, too."""
        others = len(self._held) > len(self._written)
        kept = max(len(self._written) // 2, 0 if others else 1)
        dropped = self._written[kept:]
        del self._written[kept:]
        claims = [claim for claim, _, _ in dropped]
        self._held = [each for each in self._held if each[0] not in claims]
        for _, name, fd in dropped:
            os.close(fd)
            self._spares.drop(name)

    def _write(self, claim: _HeldClaim, job: Job) -> bool:
        """Write a new document; return False, the claim let go, where the whole store is gone."""
        try:
            self._written.append((claim, *self._spares.write(encode_job(job))))
        except FileNotFoundError:
            if self._store.has(claim):
                raise
            self._let_go(claim)
            return False
        return True

    def sync(self) -> None:
        """Make what was written durable, by calls of the system alone; finish tells of errors."""
        # The claims' renames must be durable before those that come now: else a power failure could
        # undo the first and keep the second, and leave the job in two places.
        try:
            self._syncer.sync([fd for _, _, fd in self._written], self._store.synced_directories())
            self._is_synced = True
        except OSError as error:
            self._error = error

    def finish(self) -> None:
        """Put the new documents in place and move them, and free the claims.

        What goes wrong with one holds up none of the others, and is raised when they are settled.
        """
        errors: list[StoreError] = []
        try:
            if self._error is not None:
                raise files.as_store_error(self._error, self._what) from self._error
            assert self._is_synced, "not synced"
            self._spares.synced()
            for each in list(self._written):
                if self._put(*each, errors):
                    self._written.remove(each)
        finally:
            self._clean_up()
        settled: list[Job] = []
        try:
            for claim, job in self._held:
                if claim.recorded_fd >= 0 and self._move_on(claim, job, errors):
                    settled.append(job)
        finally:
            self._store.settled(settled)
        if errors:
            raise errors[0]

    def _put(self, claim: _HeldClaim, name: str, fd: int, errors: list[StoreError]) -> bool:
        """Put a new document in place; return False where that cannot be, with the error added."""
        try:
            self._store.put_in_place(self._spares, name, claim.name)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or self._store.has(claim):
                errors.append(files.as_store_error(error, self._what))
                errors[-1].__cause__ = error
                return False
            self._spares.drop(name)
        claim.recorded_fd = fd
        return True

    def _move_on(self, claim: _HeldClaim, job: Job, errors: list[StoreError]) -> bool:
        """Move a recorded job to its state, and free the claim.

        Returns False where it was taken away, or where that cannot be, with the error added.
        """
        try:
            self._store.roll_forward(claim.name, job)
        except StoreError as error:
            if self._store.has(claim):
                errors.append(error)
            else:
                self._let_go(claim)
            return False
        claim.free()
        return True

    def _let_go(self, claim: _HeldClaim) -> None:
        self.gone.append(claim)
        claim.free()

    def _clean_up(self) -> None:
        for _, name, fd in self._written:
            os.close(fd)
            self._spares.drop(name)
        self._written.clear()
