"""Learn from the kernel which names arrive in a directory, where it can tell."""

import os
import select
import sys
from contextlib import suppress

from queuectl.clock import poll_milliseconds
from queuectl.store.files import load_library

_AT_ONCE_BYTES = 65536
POLL_SECONDS = 0.25  # how often to look if the kernel cannot notify of changes


def load() -> None:
    """Load what watching takes; most commands do without."""
    if sys.platform == "linux":
        import inotify_simple

        # Else it would start a program to look for what every process has loaded.
        inotify_simple._libc = load_library()  # noqa: SLF001


class Watch:
    """An inotify watch on directories.

    ``fd`` is readable when names have arrived, None if the kernel does not report them: on another
    system, or where the user has no inotify instance or watch left. ``reads`` counts how often
    arrivals were read.
    """

    def __init__(self, *paths: str) -> None:
        """Start to watch for arrivals in some directories."""
        self.fd: int | None = None
        self.reads = 0
        self._inotify = None
        self._watched: set[int] = set()
        self._owner = os.getpid()
        if sys.platform == "linux":
            load()
            from inotify_simple import INotify, flags

            try:
                self._inotify = INotify(nonblocking=True)
                # MOVED_TO is a rename, CLOSE_WRITE the end of writing in place, CREATE a hard link.
                self._arrival = flags.MOVED_TO | flags.CLOSE_WRITE | flags.CREATE
                self._departure = flags.MOVED_FROM | flags.DELETE
                self._overflow = flags.Q_OVERFLOW
                self._only_directories = flags.ONLYDIR
                for path in paths:
                    self._add(path, self._arrival)
                self.fd = self._inotify.fileno()
            except OSError:
                self.close()

    def arrivals(self) -> list[str] | None:
        """Return names that arrived since the last call, some 800 at most.

        It is empty if all were returned, and None if the kernel has not reported all.
        """
        if self._inotify is None:
            return None
        try:
            # Not INotify.read, which reads all that the kernel holds, and that may be megabytes.
            data = os.read(self._inotify.fileno(), _AT_ONCE_BYTES)
        except BlockingIOError:
            return []
        self.reads += 1
        names: list[str] = []
        from inotify_simple import parse_events

        for event in parse_events(data):
            if event.mask & self._overflow:
                return None
            if event.mask & self._arrival:
                names.append(event.name)
        return names

    def wait(self, timeout_seconds: float) -> list[str] | None:
        """Sleep until something happens or the time is out; return what arrivals returns."""
        poll = select.poll()
        if self.fd is not None:
            poll.register(self.fd, select.POLLIN)
        poll.poll(poll_milliseconds(timeout_seconds))
        return self.arrivals()

    def add_departures(self, path: str) -> None:
        """Make ``fd`` readable also when a name leaves another directory."""
        if self._inotify is not None:
            try:
                self._add(path, self._departure)
            except OSError:
                self.close()

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            # Else closing it would often wait for the kernel to take the watches away, 10 to 30 ms.
            # A process that was forked since shares them, and must leave them alone.
            if self._owner == os.getpid():
                for descriptor in self._watched:
                    with suppress(OSError):  # the directory is gone
                        self._inotify.rm_watch(descriptor)
            self._inotify.close()
        self._inotify = None
        self.fd = None

    def _add(self, path: str, events: int) -> None:
        assert self._inotify is not None
        self._watched.add(self._inotify.add_watch(path, events | self._only_directories))
