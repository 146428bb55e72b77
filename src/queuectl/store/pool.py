"""What a pool of workers needs of a directory store as a whole."""

import os
from collections.abc import Callable

from queuectl.job import State
from queuectl.store import files
from queuectl.store.held_claim import check_descriptors
from queuectl.store.parts import Parts


class DirectoryPool:
    """The part for pools of an open store; see worker_protocol.Pool."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._core = core = parts.core
        self.check = check_descriptors  # a command can inherit its lock (rule 4)
        self.reserve = core.registry.reserve_pool
        self.is_in_place = core.directory.is_in_place
        self.recover = parts.recovery.recover
        self.tidy = core.records.tidy

    def prepare(self) -> None:
        """Set up what the workers share; see Pool.prepare."""
        self._core.registry.pool = os.urandom(8).hex()
        self._core.lock.waits_in_kernel = True
        files.load_library()  # once for all that are forked

    def report_set_aside(self, report: Callable[[str], None]) -> None:
        """Report each document that is set aside; see Pool.report_set_aside."""
        self._core.documents.on_set_aside = report

    def release_blocked(self) -> bool:
        """Release blocked jobs whose parents' ends were missed; see Pool.release_blocked."""
        has_some = any(True for _ in self._core.index.parents())
        return has_some and self._parts.dependencies.sweep()

    def is_busy(self) -> bool:
        """Return whether a worker of this pool runs a job; see Pool.is_busy."""
        scan = self._parts.scan
        scan.watch.add_departures(os.path.join(self._core.directory.location, State.PROCESSING))
        is_busy = self._core.registry.pool_is_busy()
        if not is_busy and scan.watch.fd is None:
            scan.invalidate()  # the next claim may be the last one, and must miss nothing
        return is_busy
