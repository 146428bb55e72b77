"""Find the next pending job: one scan of ``pending/`` serves many claims.

A scan streams the names and keeps the first due names, and the soonest of the names that
are due later. What arrives after it is merged in by name, so that an urgent job is next. Of each
kind a bounded number is kept, and the first name that had to be dropped: when its turn comes, a new
scan finds what was dropped.

Each process scans for itself, and what it holds is a hint: two processes may try the same name, and
the claim decides. Nor is a name lost that was returned and not claimed: it was somebody else's, or
is put off, or its file stays as it is until its next change, which is an arrival.
"""

import os
import time
from datetime import datetime

from queuectl.job import State
from queuectl.store import files
from queuectl.store.bounded import Smallest
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import is_pending_name, is_stranger, looks_pending, parse_due, pending_due
from queuectl.store.watch import Watch

MOST_DUE = 32768
MOST_LATER = 1024
_AT = 23  # the length of a due instant in a name
_AFTER_ALL = "\U0010ffff"
_READS = 256  # of 64 KiB: more than the kernel holds of arrivals, unless it was set up for it
_POLL_SECONDS = 0.2
_SCAN_SHARE = 10  # without inotify, scans take at most one part in this many of the time
_SAME_TICK_NS = 100_000_000  # a file system's clock may be as coarse: two changes, one time
_LONG_SCAN_SECONDS = 0.1
_REST_SECONDS = 0.05


class PendingScan:
    """The names in ``pending/`` that one process knows, in the order in which they are due."""

    def __init__(
        self, directory: StoreDirectory, most_due: int = MOST_DUE, most_later: int = MOST_LATER
    ) -> None:
        self._dir = directory
        self._watch: Watch | None = None
        self._due = Smallest(most_due)
        self._later = Smallest(most_later)  # due instants and names, joined
        self._put_off = Smallest(most_later)  # the same of what could not be claimed
        self._strangers = Smallest(most_later)
        self._is_stale = True
        self._poll_at = 0.0
        self._changed_ns = -1

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()

    @property
    def watch(self) -> Watch:
        """Return the watch of arrivals, which begins with the first call."""
        if self._watch is None:
            self._watch = Watch(os.path.join(self._dir.location, State.PENDING))
        return self._watch

    def take_in_arrivals(self, now: str) -> None:
        """Merge in what has arrived since the last call; the first one is before the first scan."""
        if self.watch.fd is None:
            self._poll()
            return
        # In parts, so that memory does not depend on how many came: all that the kernel holds.
        for _ in range(_READS):
            arrivals = self.watch.arrivals()
            if arrivals is None:
                self.invalidate()
            if not arrivals:
                return
            for name in arrivals:
                self.arrived(name, now)

    def _poll(self) -> None:
        """Scan again if the directory has changed, but not all the time.

        Each job that is claimed changes it as well.
        """
        if time.monotonic() < self._poll_at:
            return
        self._poll_at = time.monotonic() + _POLL_SECONDS
        if os.fstat(self._dir.fd(State.PENDING)).st_mtime_ns != self._changed_ns:
            self.invalidate()

    def arrived(self, name: str, now: str) -> None:
        """Merge in one name."""
        if is_pending_name(name):
            at = pending_due(name)
            if at <= now:
                self._due.add(name)
            else:
                self._later.add(at + name)
        elif is_stranger(name):
            self._strangers.add(name)

    def put_off(self, name: str, at: str) -> None:
        """Return a name again at an instant, given as in a name, and not before."""
        self._put_off.add(at + name)

    def invalidate(self) -> None:
        """Look at all names again."""
        self._is_stale = True

    def take(self, now: str, most: int) -> list[str]:
        """Return the first names that are due, none if there is none or ``take_strangers`` has any.

        If fewer than ``most`` are returned there may be more.
        """
        names: list[str] = []
        while len(names) < most and not self._strangers:
            if self._must_scan(now):
                if names:
                    break
                self._scan(now)
                continue
            while self._later and self._later.first[:_AT] <= now:
                self._due.add(self._later.pop()[_AT:])
            while self._put_off and self._put_off.first[:_AT] <= now:
                self.arrived(self._put_off.pop()[_AT:], now)
            if not self._due:
                break
            names.append(self._due.pop())
        return names

    def take_strangers(self) -> list[str]:
        """Return names of files to be adopted, found by the last ``take`` or arrived."""
        return self._strangers.pop_all()

    def _must_scan(self, now: str) -> bool:
        """Return whether what was dropped may be next."""
        return (
            self._is_stale
            or (not self._due and self._due.cut is not None)
            or (not self._strangers and self._strangers.cut is not None)
            or any(now >= each for each in self._scan_times())
        )

    def _scan_times(self) -> list[str]:
        cuts = self._later.cut, self._put_off.cut
        return [cut[:_AT] for cut in cuts if cut is not None]

    def soonest(self) -> str | None:
        """Return the known name that becomes due next; a name that is due does not count."""
        return self._later.first[_AT:] if self._later else None

    def has_lost_the_soonest(self) -> bool:
        """Return whether names wait of which none is known: a scan would find the soonest."""
        return not self._later and self._later.cut is not None

    def forget(self, name: str) -> None:
        """Forget the name that soonest returned."""
        self._later.remove(pending_due(name) + name)

    def forget_put_off(self) -> None:
        """Return at the next scan what was put off until an instant of another clock."""
        self._put_off.clear()
        self.invalidate()

    def next_due(self) -> datetime | None:
        """Return when the next name that is known becomes due, None for never."""
        known = [each.first[:_AT] for each in (self._later, self._put_off) if each]
        known += [pending_due(self._due.first)] if self._due else []
        known += self._scan_times()
        return parse_due(min(known)) if known else None

    def _scan(self, now: str) -> None:
        """Read the directory for what was dropped, or for all names if what is known is stale."""
        began_at = time.monotonic()
        kinds = self._due, self._later, self._strangers
        if self._put_off.cut is not None and now >= self._put_off.cut[:_AT]:
            self._put_off.forget_cut()
            self._is_stale = True
        if self._is_stale:
            for each in kinds:
                each.clear()
            dropped_from = ["", "", ""]
        else:
            dropped_from = [each.forget_cut() or _AFTER_ALL for each in kinds]
        self._is_stale = True  # until the directory has been read to its end
        with files.closing(self._dir.reopen(State.PENDING)) as fd:
            changed_ns = os.fstat(fd).st_mtime_ns
            self._changed_ns = changed_ns if changed_ns < time.time_ns() - _SAME_TICK_NS else -1
            self._read_names(fd, now, *dropped_from)
        self._is_stale = False
        seconds = time.monotonic() - began_at
        self._poll_at = max(self._poll_at, began_at + seconds * _SCAN_SHARE)
        if seconds > _LONG_SCAN_SECONDS:
            # Linux leaves a process that has used a processor for so long without a pause on one
            # processor with another worker for seconds, while a second processor is idle.
            time.sleep(_REST_SECONDS)

    def _read_names(
        self, fd: int, now: str, due_from: str, later_from: str, strangers_from: str
    ) -> None:
        """Add the names of an open directory that were dropped: of each kind from one name on."""
        due, later = self._due, self._later
        # What was put off keeps its time: found again by each scan, it would be tried forever.
        put_off = {text[_AT:] for text in self._put_off}
        at_from = later_from[:_AT]
        with os.scandir(fd) as found:
            for entry in found:
                name = entry.name
                if not looks_pending(name):
                    is_wanted = name >= strangers_from
                elif (at := name[2:25]) > now:
                    is_wanted = at + name >= later_from and (later.cut is None or at <= later.cut)
                else:
                    is_wanted = name >= due_from or at >= at_from
                    is_wanted = is_wanted and (due.cut is None or name < due.cut)
                if is_wanted and name not in put_off:
                    self.arrived(name, now)
