"""Decides when a worker process that failed is replaced, and when a pool gives up."""

from queuectl.errors import StoreError

EXIT_BUG = 70
EXIT_TEMPORARY = 75  # of a worker process for which the machine lacks something for now
_PAUSE_SECONDS = 1.0
_EARLY_SECONDS = 5.0
_MAX_EARLY_FAILURES = 10


class RestartPolicy:
    """The restarts of one pool: one process a second, unless that seems to be of no use.

    Processes that fail within seconds of their start, ten in a row, would do so for ever. One that
    lacks something, such as room on the disk, may have it again soon. It is replaced for as long as
    that takes, unless somebody waits for the pool: then the first such failure is the last.
    """

    def __init__(self, *, drain: bool, is_awaited: bool) -> None:
        """Begin with no failure; somebody waits for the end of a drain, and if ``is_awaited``."""
        self._drain = drain
        self._early_failures = 0
        self._exit_code = EXIT_BUG
        self._next_start_at = 0.0
        self.is_patient = not drain and not is_awaited
        self.lacks_resources = False  # at the last start that failed

    def note_start(self, now: float) -> None:
        """Note the start of a process. Units: seconds on the monotonic clock."""
        self._next_start_at = now + _PAUSE_SECONDS

    def pause_seconds(self, now: float) -> float:
        """Return in how many seconds the next process may be started."""
        return max(0.0, self._next_start_at - now)

    def note_failure(self, code: int, lifetime_seconds: float) -> None:
        """Note that a process failed: with an exit code, or -N if signal N killed it."""
        self.lacks_resources = code == EXIT_TEMPORARY
        self._exit_code = StoreError.exit_code if self.lacks_resources else code
        if code < 0 or lifetime_seconds >= _EARLY_SECONDS:
            self.is_patient = not self._drain
            self._early_failures = 0
        elif not self.lacks_resources:
            self._early_failures += 1
        elif not self.is_patient:
            self._early_failures = _MAX_EARLY_FAILURES

    @property
    def exit_code(self) -> int | None:
        """Return the exit code of a pool that has given up, None for one that has not."""
        return self._exit_code if self._early_failures >= _MAX_EARLY_FAILURES else None
