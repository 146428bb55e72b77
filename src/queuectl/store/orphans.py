"""Commands that outlived their worker: find them by /proc, and enforce their timeouts."""

import os
import signal
import time
from collections.abc import Collection

from queuectl.errors import QueuectlError
from queuectl.job import State
from queuectl.store import files
from queuectl.store.core import Core
from queuectl.store.held_claim import LOCK_FD_IN_COMMAND
from queuectl.store.names import parse_processing, processing_name


class Orphans:
    """The commands of one store whose worker is gone."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._dir = core.directory
        self._signaled_at: dict[tuple[str, int], float] = {}  # when each attempt got SIGTERM

    def session_leaders(self, job_id: str, attempt: int) -> set[int]:
        """Return the processes that were started as the command of an attempt.

        They are the second witness: a command may have closed the descriptor that holds the lock.
        """
        from queuectl.store.holders import session_leaders

        return session_leaders(job_id, attempt, os.fstat(self._dir.root_fd))

    def processes(self, name: str) -> set[int]:
        """Return the processes of an attempt whose worker is gone."""
        from queuectl.store.holders import holders

        parsed = parse_processing(name)
        assert parsed is not None, name
        with files.closing(files.open_document(self._dir.fd(State.PROCESSING), name)) as fd:
            if fd is None:
                return set()
            pids = holders(os.fstat(fd), name, LOCK_FD_IN_COMMAND)
        if pids is None or pids & {record.pid for record in self._core.records.live()}:
            return set()
        return pids | self.session_leaders(*parsed)

    def end(self, name: str) -> bool:
        """End the command of an attempt whose worker is gone; return whether there was one."""
        pids = self.processes(name)
        if not pids:
            return False
        from queuectl.store.holders import end_groups, groups_of

        # If the command has freed the lock, nobody else shall settle the job meanwhile.
        with self._core.documents.locked(State.PROCESSING, name):
            end_groups(groups_of(pids), self._core.settings.current().kill_grace)
        return True

    def end_overdue(self, unowned: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """End the commands that outlived their worker and their timeout, without waiting for it.

        Called each second as long as there are any. SIGTERM is sent once, and SIGKILL when the
        grace is over. Returns the attempts that got SIGTERM just now.
        """
        # RACE: while somebody else looks at a document, its processes cannot be told apart, and
        # seem to be gone. Whatever got SIGTERM is remembered, and not signaled once more; see
        # test_what_outlives_its_timeout_is_signaled_once.
        for parsed in self._signaled_at.keys() - set(unowned):
            del self._signaled_at[parsed]
        overdue = {parsed: pids for parsed in unowned if (pids := self._overdue(parsed))}
        if not overdue:
            return []
        from queuectl.store.holders import groups_of, signal_groups

        grace_seconds, now = self._core.settings.current().kill_grace, time.monotonic()
        new = []
        for parsed, pids in overdue.items():
            if parsed not in self._signaled_at:
                self._signaled_at[parsed] = now
                new.append(parsed)
                signal_groups(groups_of(pids), signal.SIGTERM, signal.SIGCONT)
            elif now - self._signaled_at[parsed] >= grace_seconds:
                signal_groups(groups_of(pids), signal.SIGKILL)
        return new

    def _overdue(self, parsed: tuple[str, int]) -> set[int]:
        """Return the processes of an attempt that are older than its timeout, none if it is not."""
        job_id, attempt = parsed
        name = processing_name(job_id, attempt)
        try:
            job = self._core.documents.read(State.PROCESSING, name, job_id)
        except QueuectlError:
            return set()  # nobody can say
        if job is None or job.timeout_seconds is None or job.next_attempt > attempt:
            return set()
        from queuectl.store.holders import age_seconds

        pids = self.processes(name)
        oldest = max(map(age_seconds, pids), default=0.0)
        return pids if oldest > job.timeout_seconds else set()
