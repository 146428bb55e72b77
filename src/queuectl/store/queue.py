"""What the workers of one process do with a directory store."""

from queuectl.store.parts import Parts
from queuectl.store.watch import POLL_SECONDS


class DirectoryQueue:
    """The part for workers of an open store; see worker_protocol.Queue."""

    poll_seconds = POLL_SECONDS

    def __init__(self, parts: Parts) -> None:
        registry, scan = parts.core.registry, parts.scan
        self._scan = scan
        self.register = registry.register
        self.unregister = registry.unregister
        self.control_fd = registry.control_fd
        self.stop_level = registry.stop_level
        self.cancel_requested = registry.cancel_requested
        self.claim = parts.claimer.claim
        self.next_due = scan.next_due
        self.begin_settle = parts.settler.begin_settle
        self.give_back = parts.settler.give_back

    def arrivals_fd(self) -> int | None:
        """Return the descriptor that is readable on arrivals; see Queue.arrivals_fd."""
        return self._scan.watch.fd

    def arrivals_read(self) -> int:
        """Return what changes when a claim reads arrivals; see Queue.arrivals_read."""
        return self._scan.watch.reads
