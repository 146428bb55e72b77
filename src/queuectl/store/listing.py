"""Find the next pending job: a scan is paid once for many claims, and once for a whole pool.

A scan streams the names and keeps the smallest ones that are due (the slice, at most SLICE) and the
soonest of those that are not (the soon, at most SOON). The slice lies in memory that the workers of
a pool share, with one cursor: each name is handed out once, in order. What arrives later is read
from the kernel by each worker for itself and merged in by name, so that an urgent arrival is next.
Of these, too, a worker holds a few of the first alone, twice SOON at most, and a scan finds the
rest when their turn comes.

What is handed out and not claimed is not lost: the name is still in the directory, and a scan finds
it again. Scans come when the slice is used up and there is more, when a worker starts (one that
died may have held a name), and when the kernel could not tell all arrivals.

A process that holds the slice may be stopped. So no other waits for it for long: it goes on with a
slice of its own, and comes back when that has to be scanned for anew.
"""

import fcntl
import heapq
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator

from queuectl.store.bounded import Marks, Nearest
from queuectl.store.names import is_pending_name, is_stranger, looks_pending, pending_due

SLICE = 65536
SOON = 1024
_LONGEST_NAME = 132  # a pending name and a newline
_CUT = _LONGEST_NAME
_DUE = 23  # the length of a due instant in a name
_HEADER = struct.Struct("QQQQQ")  # generation, whether it is stale, cursor, ends of slice and soon
_CUTS = struct.Struct(f"{_CUT}s{_CUT}s")
_SCANNED = struct.Struct("dd")  # when the last scan began, by the monotonic clock, and its seconds
_SCANNED_AT = _HEADER.size + _CUTS.size
_DATA = 512
_LOOK_SHARE = 10  # where nothing tells of arrivals, scans take one part in so many of the time
_LONG_SCAN_SECONDS = 0.1
_REST_SECONDS = 0.05
# What others wait for a slice: a scan of some millions. Timeouts wait with them.
_PATIENCE_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.0002
_LONGEST_PAUSE_SECONDS = 0.005


class Smallest:
    """Keep the ``most`` smallest of a stream of texts, in memory that depends on ``most`` alone.

    ``cut`` is the largest that is kept once there were more, None before.
    """

    def __init__(self, most: int) -> None:
        """Start with nothing."""
        self._most = most
        self._kept: list[str] = []
        self.cut: str | None = None

    def add(self, text: str) -> None:
        """Take one more."""
        if self.cut is None or text < self.cut:
            self._kept.append(text)
            if len(self._kept) >= 2 * self._most:
                self._trim()

    def _trim(self) -> None:
        self._kept.sort()
        if len(self._kept) > self._most:
            del self._kept[self._most :]
            self.cut = self._kept[-1]

    def sorted(self) -> list[str]:
        """Return what is kept, the smallest first."""
        self._trim()
        return self._kept


class Slice:
    """Hold one scan's result in memory that forked processes share, behind a lock that dies with
    its holder.

    The generation counts the scans; a stale slice is one that must be scanned anew.
    """  # noqa: D205

    def __init__(self, most: int = SLICE, most_soon: int = SOON, *, is_shared: bool = True) -> None:
        """Reserve the memory; pages that are not used cost nothing."""
        self.most = most
        self.most_soon = most_soon
        size = _DATA + (most + most_soon + 1) * _LONGEST_NAME
        self._fd = -1
        try:
            if is_shared and hasattr(os, "memfd_create"):
                self._fd = os.memfd_create("queuectl-slice", os.MFD_CLOEXEC)
                os.ftruncate(self._fd, size)
            # Without memfd_create there is no lock either: then each process keeps its own slice.
            sharing = mmap.MAP_SHARED if self._fd >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANON
            self._map = mmap.mmap(self._fd, size, flags=sharing)
        except BaseException:
            self._close_fd()
            raise
        self.generation = -1
        self.slice_cut = self.soon_cut = ""
        self._store(0, True, 0, 0, 0)

    def close(self) -> None:
        """Free the memory in this process; the other ones keep it."""
        self._map.close()
        self._close_fd()

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def acquire(self, most_seconds: float) -> bool:
        """Keep the other processes of the pool out, and read what they left.

        Returns False if one of them has not let this one in for so long.
        """
        if self._fd >= 0 and not self._lock() and not self._wait_for_lock(most_seconds):
            return False
        self._load()
        return True

    def _lock(self) -> bool:
        # A record lock belongs to a process, unlike a lock on the description that forks share.
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _wait_for_lock(self, most_seconds: float) -> bool:
        # The kernel would wait for as long as the holder is stopped.
        deadline = time.monotonic() + most_seconds
        pause = _SHORTEST_PAUSE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            if self._lock():
                return True
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return False

    def release(self) -> None:
        """Let the others in."""
        if self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _load(self) -> None:
        generation, stale, self._cursor, self._end, self._soon_end = _HEADER.unpack_from(self._map)
        if generation != self.generation:
            slice_cut, soon_cut = _CUTS.unpack_from(self._map, _HEADER.size)
            self.slice_cut = slice_cut.rstrip(b"\0").decode()
            self.soon_cut = soon_cut.rstrip(b"\0").decode()
            self.generation = generation
        self.stale = stale != 0

    def _store(self, generation: int, *values: int) -> None:
        _HEADER.pack_into(self._map, 0, generation, *values)
        self._load()

    def peek(self) -> str | None:
        """Return the next name to hand out, None where all are."""
        if self._cursor >= self._end:
            return None
        start = _DATA + self._cursor
        return self._map[start : self._map.find(b"\n", start)].decode()

    def advance(self, name: str) -> None:
        """Hand out the name that peek returned."""
        self._cursor += len(name) + 1
        struct.pack_into("Q", self._map, 16, self._cursor)

    def soon(self) -> list[str]:
        """Return the soonest names that were not due at the scan."""
        blob = self._map[_DATA + self._end : _DATA + self._soon_end]
        return blob.decode().split("\n")[:-1]

    def fill(self, due: Smallest, soon: Smallest) -> None:
        """Put in what a scan found; ``soon`` holds due instant and name, joined."""
        names = due.sorted()
        soon_names = [text[_DUE:] for text in soon.sorted()]
        # Not valid while it is written: a process that dies here leaves a stale slice.
        self._store(self.generation, True, 0, 0, 0)
        blob = "".join(name + "\n" for name in names).encode()
        soon_blob = "".join(name + "\n" for name in soon_names).encode()
        self._map[_DATA : _DATA + len(blob) + len(soon_blob)] = blob + soon_blob
        cuts = (due.cut or "").encode(), (soon.cut or "")[:_DUE].encode()
        _CUTS.pack_into(self._map, _HEADER.size, *cuts)
        self._store(self.generation + 1, False, 0, len(blob), len(blob) + len(soon_blob))

    def note_scan(self, began_at: float, seconds: float) -> None:
        """Note when the last scan began, and how long it took; the caller holds the lock."""
        _SCANNED.pack_into(self._map, _SCANNED_AT, began_at, seconds)

    def last_scan(self) -> tuple[float, float]:
        """Return what was noted last; a guess unless the caller holds the lock."""
        began_at, seconds = _SCANNED.unpack_from(self._map, _SCANNED_AT)
        return began_at, seconds

    def invalidate(self) -> None:
        """Make the next one who asks scan anew; the caller holds the lock."""
        struct.pack_into("Q", self._map, 8, 1)
        self.stale = True


class Listing:
    """Hand out the names of due jobs in their order, for one worker of a pool."""

    def __init__(self, open_directory: Callable[[], int], shared: Slice) -> None:
        """Take what opens the directory anew, so that forked processes share no position in it."""
        self._open_directory = open_directory
        self._of_pool = shared
        self._shared = shared  # or one of its own, while another process does not let it in
        self._generation = -1
        # What arrived, due and not yet due; of more, a scan finds the rest (see _forget_drops).
        self._ready: Nearest[str] = Nearest(shared.most_soon)
        self._later: Nearest[tuple[str, str]] = Nearest(shared.most_soon)
        self._dropped_in = -1  # the generation at the last look after a drop
        # What could not be claimed, each until its instant; of more, all until the first of theirs.
        self._put_off: list[tuple[str, str]] = []
        self._many_put_off = Marks()
        self._put_off_until: str | None = None
        self.strangers: list[str] = []
        self.more_strangers = False
        self.left_alone = Marks()
        self._scan_seconds = 0.0

    def arrived(self, name: str, now: str) -> None:
        """Take in a name that came after the scan."""
        at = pending_due(name)
        if at <= now:
            self._ready.push(name)
        else:
            self._later.push((at, name))

    def again(self, name: str, at: str) -> None:
        """Hand out a name again at an instant, given as in a name, and not before."""
        if len(self._put_off) < self._shared.most_soon:
            heapq.heappush(self._put_off, (at, name))
        else:
            self._many_put_off.add(name)
            if self._put_off_until is None or at < self._put_off_until:
                self._put_off_until = at

    def invalidate(self, seen_at: float | None = None) -> None:
        """Make the next call scan anew, for the whole pool.

        What was missed by ``seen_at``, by the monotonic clock, is found by a scan that began later.
        """
        self._enter()
        try:
            if seen_at is None or self._shared.last_scan()[0] <= seen_at:
                self._shared.invalidate()
        finally:
            self._shared.release()

    def look_at(self) -> float:
        """Return when to look for arrivals, by the monotonic clock, if nothing tells of them."""
        began_at, seconds = self._shared.last_scan()
        return began_at + seconds * _LOOK_SHARE

    def _enter(self) -> None:
        """Hold the slice of the pool, or one of its own if that cannot be had."""
        if self._shared is self._of_pool:
            if self._of_pool.acquire(_PATIENCE_SECONDS):
                return
            most, most_soon = self._of_pool.most, self._of_pool.most_soon
            self._use(Slice(most, most_soon, is_shared=False))
        self._shared.acquire(0.0)

    def _come_back(self) -> None:
        """Scan for the whole pool again, if whoever kept this process out lets it in."""
        if self._shared is not self._of_pool and self._of_pool.acquire(0.0):
            self._shared.close()
            self._use(self._of_pool)
            self._shared.invalidate()

    def _use(self, other: Slice) -> None:
        """Turn to another slice, which is scanned for before anything is taken from it."""
        self._shared = other
        # Its scans are counted for itself, and the first one finds whatever was dropped.
        self._generation = self._dropped_in = -1

    def take(self, now: str, most: int) -> list[str]:
        """Return the first names that are due, each once for the pool; none where there is none.

        There may be more where fewer than ``most`` are returned: a scan would find those again.
        """
        names = self._take(now, most)
        if self._scan_seconds > _LONG_SCAN_SECONDS:
            # Linux leaves a process that has used a processor for so long without a pause on one
            # processor with another worker for seconds, while a second processor is idle.
            time.sleep(_REST_SECONDS)
        self._scan_seconds = 0.0
        return names

    def _take(self, now: str, most: int) -> list[str]:
        names: list[str] = []
        self._enter()
        try:
            while len(names) < most:
                self._forget_drops()
                if self._shared.stale or self._must_scan(now):
                    if names:
                        break
                    self._come_back()
                    self._scan(now)
                shared = self._shared
                self._learn_soon(now)
                while self._later and self._later.first[0] <= now:
                    self._ready.push(self._later.pop()[1])
                while self._put_off and self._put_off[0][0] <= now:
                    self._ready.push(heapq.heappop(self._put_off)[1])
                first = shared.peek()
                if self._ready and (first is None or self._ready.first <= first):
                    name = self._ready.pop()
                    if shared.slice_cut and name > shared.slice_cut:
                        continue  # names between the cut and this one are not known: scan first
                    names.append(name)
                elif self._ready.cut is not None and (first is None or self._ready.cut < first):
                    shared.invalidate()  # what arrived and was dropped comes first
                elif first is not None:
                    shared.advance(first)
                    names.append(first)
                elif shared.slice_cut:
                    shared.invalidate()
                else:
                    break
        finally:
            self._shared.release()
        return names

    def _learn_soon(self, now: str) -> None:
        """Take in what another worker's scan found that is due soon."""
        if self._shared.generation != self._generation:
            self._generation = self._shared.generation
            known = {name for _, name in self._later}
            for name in self._shared.soon():
                if name not in known:
                    self.arrived(name, now)

    def _must_scan(self, now: str) -> bool:
        """Return whether something may be due that a scan or this worker has dropped."""
        return any(now >= each for each in self._scan_times())

    def _scan_times(self) -> Iterator[str]:
        """Yield the instants at which a scan is needed."""
        if self._shared.soon_cut:
            yield self._shared.soon_cut
        if self._later.cut is not None:
            yield self._later.cut[0]
        if self._put_off_until is not None:
            yield self._put_off_until

    def _forget_drops(self) -> None:
        """Forget what was dropped where another worker has scanned since, and found it."""
        if self._ready.has_dropped or self._later.has_dropped:
            self._ready.has_dropped = self._later.has_dropped = False
            self._dropped_in = self._shared.generation
        # A scan that was under way at the drop may have passed the name; the next one has not.
        elif self._shared.generation >= self._dropped_in + 2:
            self._ready.forget_drops()
            self._later.forget_drops()

    def soonest(self) -> str | None:
        """Return the known name that becomes due first, of those that are not due and not put off.

        Called after none was due.
        """
        return self._later.first[1] if self._later else None

    def has_lost_the_soonest(self) -> bool:
        """Return whether names wait of which none is known: a scan would tell the soonest."""
        return not self._later and (bool(self._shared.soon_cut) or self._later.cut is not None)

    def forget(self, name: str) -> None:
        """Forget the name that soonest returned."""
        self._later.remove((pending_due(name), name))

    def forget_put_off(self) -> None:
        """Hand out at the next scan what was put off until an instant of another clock."""
        self._put_off.clear()
        self._forget_many_put_off()
        self.invalidate()

    def _forget_many_put_off(self) -> None:
        self._many_put_off = Marks()
        self._put_off_until = None

    def next_due(self) -> str | None:
        """Return when the next name that is known becomes due, None for never."""
        known = [self._later.first[0]] if self._later else []
        known += [self._put_off[0][0]] if self._put_off else []
        known += [pending_due(self._ready.first)] if self._ready else []
        known += self._scan_times()
        return min(known, default=None)

    def _scan(self, now: str) -> None:
        started = time.monotonic()
        due = Smallest(self._shared.most)
        soon = Smallest(self._shared.most_soon)
        self.strangers.clear()
        self.more_strangers = False
        self._ready.clear()
        self._later.clear()
        # What was put off keeps its time: found again by each scan, it would be looked at forever.
        put_off = {name for _, name in self._put_off}
        if self._put_off_until is not None and now >= self._put_off_until:
            self._forget_many_put_off()

        def is_passed_over(name: str) -> bool:
            return name in put_off or name in self._many_put_off or name in self.left_alone

        fd = self._open_directory()
        try:
            with os.scandir(fd) as found:
                for entry in found:
                    name = entry.name
                    if not looks_pending(name):
                        self._meet(name, is_passed_over)
                    elif (at := name[2:25]) > now:
                        if soon.cut is None or at <= soon.cut:
                            if is_pending_name(name):
                                soon.add(at + name)
                            else:
                                self._meet(name, is_passed_over)
                    elif due.cut is None or name < due.cut:
                        if not is_pending_name(name):
                            self._meet(name, is_passed_over)
                        elif not is_passed_over(name):
                            due.add(name)
        finally:
            os.close(fd)
        self._shared.fill(due, soon)
        self._scan_seconds = time.monotonic() - started
        self._shared.note_scan(started, self._scan_seconds)

    def _meet(self, name: str, is_passed_over: Callable[[str], bool]) -> None:
        if not is_stranger(name) or is_passed_over(name):
            return
        if len(self.strangers) < SOON:
            self.strangers.append(name)
        else:
            self.more_strangers = True
