"""Cancel jobs: move those that wait, and have those that run ended by who runs them."""

import os
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from queuectl.clock import utc_now
from queuectl.errors import JobNotFound, QueuectlError
from queuectl.job import Attempt, Job, Outcome, State, encode_job
from queuectl.store import files
from queuectl.store.base import FINISHED, Claim, Decide, Entry, Recovered, Slow, WorkerRecord
from queuectl.store.channel import STOP, STOP_NOW, send
from queuectl.store.ends import TOGETHER_SECONDS
from queuectl.store.lookup import Lookup
from queuectl.store.names import (
    filed_name,
    is_pending_name,
    parse_blocked,
    parse_processing,
    processing_name,
)
from queuectl.store.place import LOCK_FD_IN_COMMAND
from queuectl.store.roster import Roster

if TYPE_CHECKING:
    from queuectl.store.watch import Watch

_SLOW_SECONDS = 5.0  # who waits so long for the end of an attempt says why
_HELD_SECONDS = 0.01  # who holds a waiting job's lock moves it in less


class StillRuns(Exception):
    """Report that nobody holds a job's lock, and that its command runs nevertheless."""


class _Turn(NamedTuple):
    """Be the right of one process to end what is overdue: its lock, and when each was told."""

    pid: int
    fd: int
    told_at: dict[tuple[str, int], float]


class Cancelling(Lookup, Roster):
    """Cancel jobs, let workers know of it, and end what outlives them."""

    poll_seconds: float
    _turn_to_end: "_Turn | None" = None

    def close(self) -> None:
        """Free what is held open."""
        self._pass_turn_to_end()
        super().close()

    # --- what people and scripts do ---

    def cancel(
        self, job_ids: Sequence[str], slow: Slow | None = None
    ) -> Iterator[tuple[str, State | None]]:
        """Cancel jobs, each whatever becomes of the others; see Store.cancel."""
        entries = self.find(job_ids)
        for job_id in job_ids:
            if job_id not in entries:
                raise JobNotFound(f"no such job: {job_id}")
        running = [each for each in job_ids if entries[each].state is State.PROCESSING]
        asked: set[tuple[str, str]] = set()
        # Those that wait come first: a worker that is freed would take the next of them.
        for job_id in job_ids:
            if entries[job_id].state is not State.PROCESSING:
                yield job_id, self._cancel(entries[job_id], asked, slow)
        # All are told before the first is waited for, so that they have their grace together.
        for job_id in running:
            self._ask(entries[job_id], asked)
        for job_id in running:
            yield job_id, self._cancel(entries[job_id], asked, slow)

    def _cancel(self, entry: Entry, asked: set[tuple[str, str]], slow: Slow | None) -> State | None:
        """Cancel a job wherever it goes meanwhile; return the state that it ends in."""
        found: Entry | None = entry
        # RACE: the job may end, be claimed or come back at any moment; each time it is looked for
        # anew, until it is cancelled or was faster; see tests/contract/test_cancel.py.
        with self._telling(f"{self.location}: job {entry.id} cannot be cancelled"):
            while found is not None:
                if found.state is State.PROCESSING:
                    self._end_running(found, asked, slow)
                elif found.state not in FINISHED:
                    self._cancel_waiting(found)
                ended = self._end_of(entry.id)
                if ended is not None:
                    self._make_arrivals_durable(ended)  # who asked is told
                    self._release_children([entry.id])
                    return ended
                found = self.find([entry.id]).get(entry.id)
        return None

    def _cancel_waiting(self, entry: Entry) -> None:
        """Cancel a job that does not run, if it is still there."""
        if entry.state is not State.PENDING or is_pending_name(entry.token):
            self._move_to_cancelled(entry)
            return
        # It was dropped there by a hand, and another job may have its name for an id, and in
        # cancelled/ the place that it would take.
        with self._moving_into_pending():
            if self._locate(entry.id, except_pending=entry.token) is None:
                self._move_to_cancelled(entry)
                return
            self._read(entry.state, entry.token, entry.id)  # what is no document raises
            self._adopt([entry.token], utc_now())
        if self._exists(self._fd(State.PENDING), entry.token):
            time.sleep(_HELD_SECONDS)

    def _move_to_cancelled(self, entry: Entry) -> None:
        """Cancel a job that waits: lock, move, then rewrite."""
        with self._locked(entry.state, entry.token) as fd:
            # Read whether it is locked or not: what is no document raises.
            job = self._read(entry.state, entry.token, entry.id)
            if fd is None or job is None:
                time.sleep(_HELD_SECONDS)
                return
            name = filed_name(entry.id)
            job = job._replace(state=State.CANCELLED, updated_at=utc_now())
            # Written before the move, so that a full disk refuses all of it.
            with self._written(encode_job(job)) as (temporary, recorded_fd):
                self._make_waiting_durable(entry)
                self._move(entry.state, entry.token, State.CANCELLED, name)
                # A record in cancelled/ beside the document where it was would be a second one.
                self._make_arrivals_durable(State.CANCELLED)
                with self._telling(f"{self.location}/{State.CANCELLED}/{name} cannot be written"):
                    os.rename(
                        temporary,
                        name,
                        src_dir_fd=self._fd("tmp"),
                        dst_dir_fd=self._fd(State.CANCELLED),
                    )
            os.close(recorded_fd)

    def _make_waiting_durable(self, entry: Entry) -> None:
        """Make durable that a job has come to where it waits; see _make_arrivals_durable."""
        if entry.state is State.BLOCKED:
            from queuectl.store.blocked import Blocked

            Blocked(self).sync({parse_blocked(entry.token)[0]})
        else:
            self._make_arrivals_durable(entry.state)

    def _end_running(self, entry: Entry, asked: set[tuple[str, str]], slow: Slow | None) -> None:
        """See to it that an attempt ends, and return when its document has left processing/."""
        from queuectl.store.watch import Watch

        watch, began = Watch(), time.monotonic()
        try:
            # RACE: watch before the look, so that an end in between is told.
            watch.add_departures(os.path.join(self.location, State.PROCESSING))
            while self._is_running(entry):
                if not self._ask(entry, asked) and not self._settle_unowned(entry, ended=False):
                    self._end_outliving(entry)
                if slow is not None and time.monotonic() - began >= _SLOW_SECONDS:
                    slow(entry.id, self._runner_of(entry))
                    slow = None
                self._sleep_while_running(entry, watch)
        finally:
            watch.close()
        # Where it was given back, the same worker may run the same attempt once more.
        asked.difference_update([each for each in asked if each[1] == entry.token])

    def _is_running(self, entry: Entry) -> bool:
        return self._is_document(State.PROCESSING, entry.token)

    def _sleep_while_running(self, entry: Entry, watch: "Watch") -> None:
        until = time.monotonic() + self.poll_seconds
        while self._is_running(entry) and (left := until - time.monotonic()) > 0:
            watch.wait(left)
            time.sleep(TOGETHER_SECONDS)

    def _ask(self, entry: Entry, asked: set[tuple[str, str]]) -> bool:
        """Tell the worker that runs a job to end it, once; False where none says that it runs it.

        None does, too, in the moment between its claim and its record, and when the command has
        ended and is to be settled with others.
        """
        record = self._runner_of(entry)
        if record is None:
            return False
        request = (record.name, entry.token)
        if request not in asked and self._send(record.name, entry):
            asked.add(request)
        return True

    def _runner_of(self, entry: Entry) -> WorkerRecord | None:
        """Return the worker that says that it runs an attempt, None if none does."""
        for record in self.workers():
            if record.job == entry.id and record.attempt == entry.attempt:
                return record
        return None

    def _send(self, worker: str, entry: Entry) -> bool:
        with self._telling(f"{self.location}/workers/{worker}.control cannot be written"):
            return send(self._fd("workers"), worker, f"{entry.id}.{entry.attempt}")

    def _settle_unowned(self, entry: Entry, *, ended: bool) -> bool:
        """Settle a job that nobody holds as cancelled; its attempt was ``ended`` here, or lost."""

        def decide(job: Job, attempt: Attempt) -> Job:
            if ended:
                attempt = attempt._replace(outcome=Outcome.CANCELLED)
            return job.with_attempt(attempt)._replace(
                state=State.CANCELLED, updated_at=attempt.finished_at
            )

        with self._locked(State.PROCESSING, entry.token) as fd:
            if fd is None:
                return False
            self._read(State.PROCESSING, entry.token, entry.id)  # what is no document raises
            parsed = parse_processing(entry.token)
            assert parsed is not None, entry.token
            try:
                self._recover_locked(entry.token, fd, parsed, decide)
            except StillRuns:
                return False
        self._tidy_records()
        return True

    def _adopt(self, names: Collection[str], now: datetime) -> None:
        """Give files that were dropped into pending/ their place; the rules say how."""
        raise NotImplementedError

    def _recover_locked(
        self, name: str, fd: int, parsed: tuple[str, int], decide: Decide
    ) -> Recovered | None:
        """Settle a document in processing/ that is locked; the rules say how. Raises: StillRuns."""
        raise NotImplementedError

    # --- commands that outlived their worker ---

    def _session_leaders(self, job_id: str, attempt: int) -> set[int]:
        """Return the processes that are the command of an attempt by what they were started with.

        It is the second witness: a command may have closed the descriptor that holds the lock.
        """
        from queuectl.store.holders import session_leaders

        wanted = {"QUEUECTL_JOB_ID": job_id, "QUEUECTL_ATTEMPT": str(attempt)}
        return session_leaders(wanted, "QUEUECTL_STORE", os.fstat(self._root_fd))

    def _outliving(self, name: str) -> set[int]:
        """Return the processes of an attempt whose worker is gone."""
        from queuectl.store.holders import holders

        parsed = parse_processing(name)
        assert parsed is not None, name
        fd = files.open_document(self._fd(State.PROCESSING), name)
        if fd is None:
            return set()
        try:
            pids = holders(os.fstat(fd), name, LOCK_FD_IN_COMMAND)
        finally:
            os.close(fd)
        if pids is None or pids & {record.pid for record in self.workers()}:
            return set()
        return pids | self._session_leaders(*parsed)

    def _end_outliving(self, entry: Entry) -> None:
        """End a command whose worker is gone, and settle its job."""
        pids = self._outliving(entry.token)
        if pids:
            from queuectl.store.holders import end_groups, groups_of

            # Where the command has let go of the lock, nobody else shall settle the job meanwhile.
            with self._locked(State.PROCESSING, entry.token):
                end_groups(groups_of(pids), self.settings().kill_grace)
            self._settle_unowned(entry, ended=True)

    def _end_overdue(self, unowned: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """End the commands that outlived their worker and their timeout, without waiting for it.

        It is called each second as long as there are any. SIGTERM is sent once, by one process for
        all pools, and SIGKILL when the grace is over. Returns those that were told just now.
        """
        self._forget_turn_to_end()
        turn = self._turn_to_end
        overdue = {parsed: pids for parsed in unowned if (pids := self._overdue(parsed))}
        if turn is not None:
            for parsed in turn.told_at.keys() - set(unowned):
                del turn.told_at[parsed]
            # RACE: while somebody else looks at a document, its processes cannot be told apart, and
            # seem to be gone. Whoever was told to end is remembered, and not told once more; see
            # test_what_outlives_its_timeout_is_told_to_end_once_by_one_process.
            if not overdue and not turn.told_at:
                self._pass_turn_to_end()
        if not overdue:
            return []
        turn = self._take_turn_to_end()
        if turn is None:
            return []
        from queuectl.store.holders import groups_of, signal_groups

        grace_seconds, now = self.settings().kill_grace, time.monotonic()
        told = []
        for parsed, pids in overdue.items():
            if parsed not in turn.told_at:
                turn.told_at[parsed] = now
                told.append(parsed)
                signal_groups(groups_of(pids), signal.SIGTERM, signal.SIGCONT)
            elif now - turn.told_at[parsed] >= grace_seconds:
                signal_groups(groups_of(pids), signal.SIGKILL)
        return told

    def _overdue(self, parsed: tuple[str, int]) -> set[int]:
        """Return the processes of an attempt that are older than its timeout, none if it is not."""
        job_id, attempt = parsed
        name = processing_name(job_id, attempt)
        try:
            job = self._read(State.PROCESSING, name, job_id)
        except QueuectlError:
            return set()  # it cannot be told
        if job is None or job.timeout_seconds is None or job.next_attempt > attempt:
            return set()
        from queuectl.store.holders import age_seconds

        pids = self._outliving(name)
        oldest = max(map(age_seconds, pids), default=0.0)
        return pids if oldest > job.timeout_seconds else set()

    def _take_turn_to_end(self) -> "_Turn | None":
        if self._turn_to_end is None:
            fd = self._reopen(State.PROCESSING)
            if files.lock(fd):
                self._turn_to_end = _Turn(os.getpid(), fd, {})
            else:
                os.close(fd)
        return self._turn_to_end

    def _forget_turn_to_end(self) -> None:
        """Drop the turn of the supervisor from which this process was forked."""
        if self._turn_to_end is not None and self._turn_to_end.pid != os.getpid():
            self._pass_turn_to_end()

    def _pass_turn_to_end(self) -> None:
        if self._turn_to_end is not None:
            os.close(self._turn_to_end.fd)
            self._turn_to_end = None

    # --- what workers do ---

    def control_fd(self, worker: str = "") -> int | None:
        """Return the descriptor that tells of requests; see Store.control_fd."""
        post = self._post(worker)
        return None if post is None else post.control_fd

    def cancel_requested(self, claim: Claim) -> bool:
        """Tell whether this attempt is to be ended; see Store.cancel_requested."""
        post = self._post(claim.worker)
        if post is None:
            return False
        # A request for another attempt came too late: that one has ended by itself.
        wanted = f"{claim.job.id}.{claim.attempt}"
        post.heard = post.hear() & {wanted, STOP, STOP_NOW}
        return wanted in post.heard

    def stop_level(self, worker: str = "") -> int:
        """Return whether to stop without the supervisor's word; see Store.stop_level."""
        post = self._post(worker)
        heard = frozenset() if post is None else post.hear()
        return 2 if STOP_NOW in heard else int(STOP in heard)
