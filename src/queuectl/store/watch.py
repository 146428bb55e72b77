"""Tell when files arrive in a directory: from the kernel where it can, else by looking."""

import os
import select
import sys
import time

from queuectl.clock import poll_milliseconds
from queuectl.store.files import load_library

_LOOK_SECONDS = 0.2
_FREED_SECONDS = 0.001
_AT_ONCE_BYTES = 65536
_SAME_TICK_NS = 100_000_000  # a file system's clock may be as coarse: two changes, one time


def load() -> None:
    """Load what watching takes; most commands do without."""
    if sys.platform == "linux":
        import inotify_simple

        # Else it would start a program to look for what every process has loaded.
        inotify_simple._libc = load_library()  # noqa: SLF001


class Watch:
    """Watch directories; ``fd`` is readable when names have arrived, None where nothing tells.

    ``times_told`` changes when what made ``fd`` readable is read.
    """

    def __init__(self, *paths: str) -> None:
        """Start to watch; what arrives from now on is told."""
        self.fd: int | None = None
        self._inotify = None
        self._paths = paths
        self.times_told = 0
        self._look_at = 0.0
        self._is_to_look = False
        self._seen: list[int] = []
        self._poll = select.poll()
        self._watched: set[int] = set()
        if sys.platform == "linux":
            load()
            from inotify_simple import INotify, flags

            try:
                self._inotify = INotify(nonblocking=True)
                # MOVED_TO is a rename, CLOSE_WRITE the end of writing in place, CREATE a hard link.
                mask = flags.MOVED_TO | flags.CLOSE_WRITE | flags.CREATE | flags.ONLYDIR
                for path in paths:
                    self._watched.add(self._inotify.add_watch(path, mask))
                self._arrivals = frozenset(self._watched)
                self._overflow = flags.Q_OVERFLOW
                self._departure = flags.MOVED_FROM | flags.DELETE | flags.ONLYDIR
                self.fd = self._inotify.fileno()
                self._poll.register(self.fd, select.POLLIN)
            except OSError:
                # The user has no inotify instance or watch left: looking serves as well.
                self.close()

    def arrivals(self, look_at: float = 0.0) -> list[str] | None:
        """Return names that arrived since the last call, some 800 at most: none where all were
        returned, None where some were not told.

        What must be looked for is not looked for before ``look_at``, by the monotonic clock.
        """  # noqa: D205
        if self._inotify is None:
            return None if self._has_changed(look_at) else []
        if not self._poll.poll(0):
            return []
        self.times_told += 1
        names: list[str] = []
        from inotify_simple import parse_events

        # Not INotify.read, which reads all that the kernel holds, and that may be megabytes.
        for event in parse_events(os.read(self._inotify.fileno(), _AT_ONCE_BYTES)):
            if event.mask & self._overflow:
                return None
            if event.wd in self._arrivals:
                names.append(event.name)
        return names

    def look_now(self) -> None:
        """Look at the next call, however soon after the last look."""
        self._is_to_look = True

    def _has_changed(self, look_at: float) -> bool:
        """Look, a few times a second at most, whether a directory was changed since the last time.

        It is also changed by those who take names out, so that looking each time would be too much.
        """
        if not self._is_to_look and time.monotonic() < max(self._look_at, look_at):
            return False
        self._is_to_look = False
        self._look_at = time.monotonic() + _LOOK_SECONDS
        settled = time.time_ns() - _SAME_TICK_NS
        changed_at = [os.stat(path).st_mtime_ns for path in self._paths]
        has_changed = changed_at != self._seen
        self._seen = [each if each < settled else -1 for each in changed_at]
        return has_changed

    def wait(self, timeout_seconds: float) -> list[str] | None:
        """Sleep until something happens or the time is out; return what arrivals returns."""
        self._poll.poll(poll_milliseconds(timeout_seconds))
        return self.arrivals()

    def add_departures(self, path: str) -> None:
        """Make ``fd`` readable also when a name leaves another directory."""
        if self._inotify is not None:
            try:
                self._watched.add(self._inotify.add_watch(path, self._departure))
            except OSError:  # no watch is left: looking has to serve
                self.close()

    def close(self) -> None:
        """Stop watching in this process; others that were forked with it watch on."""
        if self._inotify is not None:
            if self.fd is not None:
                self._poll.unregister(self.fd)
            self._inotify.close()
        self._inotify = None
        self.fd = None
