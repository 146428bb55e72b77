"""A claimed job of this process, and the lock that the command inherits (rule 4)."""

import os
from dataclasses import dataclass
from datetime import datetime

from queuectl.errors import StoreError
from queuectl.job import Job

LOCK_FD_IN_COMMAND = 100  # so high that no script closes or reuses it by accident


@dataclass(slots=True, kw_only=True, eq=False)
class HeldClaim:
    """A claim that is the lock of a document, and what was already done to settle it."""

    worker: str
    job: Job
    attempt: int
    started_at: datetime
    fd: int
    name: str
    came_from: str
    recorded_fd: int = -1

    @property
    def pass_fds(self) -> tuple[tuple[int, int], ...]:
        """Return the descriptor that the command inherits, and its number there."""
        return ((self.fd, LOCK_FD_IN_COMMAND),)

    def free(self) -> None:
        """Free the lock of the document, and that of its successor."""
        for fd in (self.recorded_fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.recorded_fd = -1


def check_descriptors() -> None:
    """Check that a command can inherit its lock. Raises: StoreError."""
    most = os.sysconf("SC_OPEN_MAX")
    if 0 <= most <= LOCK_FD_IN_COMMAND:
        raise StoreError(
            f"a worker needs {LOCK_FD_IN_COMMAND + 1} file descriptors at least, and may have"
            f" {most}: raise the limit (ulimit -n)"
        )
