"""Hold what may become very many in memory that does not grow with it."""

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T", str, tuple[str, str])

_FEW_MARKS = 1024
_MERGE_SHARE = 16


class Nearest(Generic[T]):
    """The smallest of what is put in and not yet taken out: less than twice ``most``.

    ``cut`` is the smallest that was dropped since ``clear``, None where none was; whatever is
    larger than it is dropped as well, so that what is held is all that there is below the cut.
    ``has_dropped`` is for whoever asks to set back.
    """

    def __init__(self, most: int) -> None:
        """Start with nothing."""
        self._most = most
        self._heap: list[T] = []
        self.cut: T | None = None
        self.has_dropped = False

    def __bool__(self) -> bool:
        """Return whether anything is held."""
        return bool(self._heap)

    def __iter__(self) -> Iterator[T]:
        """Iterate over what is held, in no order."""
        return iter(self._heap)

    @property
    def first(self) -> T:
        """Return the smallest that is held."""
        return self._heap[0]

    def push(self, item: T) -> None:
        """Put one in."""
        if self.cut is not None and item >= self.cut:
            self.has_dropped = True
            return
        heapq.heappush(self._heap, item)
        if len(self._heap) >= 2 * self._most:
            self._heap.sort()
            self.cut = self._heap[self._most]
            self.has_dropped = True
            del self._heap[self._most :]

    def pop(self) -> T:
        """Take the smallest out."""
        return heapq.heappop(self._heap)

    def remove(self, item: T) -> None:
        """Take one out that is held."""
        self._heap.remove(item)
        heapq.heapify(self._heap)

    def forget_drops(self) -> None:
        """Begin without a cut."""
        self.cut = None
        self.has_dropped = False

    def clear(self) -> None:
        """Take all out, and begin without a cut."""
        self._heap.clear()
        self.forget_drops()


class Marks:
    """Texts that were marked, each held as a hash of 64 bits: 8 to 12 MB for a million.

    Of a million texts and a million marks, one text is taken for another in one of 10 million runs.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._sorted = array("q")
        self._recent: set[int] = set()

    def add(self, text: str) -> None:
        """Mark a text."""
        self._recent.add(hash(text))
        if len(self._recent) > max(_FEW_MARKS, len(self._sorted) // _MERGE_SHARE):
            recent, self._recent = sorted(self._recent), set()
            self._sorted = array("q", heapq.merge(self._sorted, recent))

    def discard(self, text: str) -> None:
        """Take the mark from a text, if it has one."""
        if not self._recent and not self._sorted:
            return
        mark = hash(text)
        self._recent.discard(mark)
        at = bisect_left(self._sorted, mark)
        while self._sorted[at : at + 1] == array("q", (mark,)):
            del self._sorted[at]

    def __contains__(self, text: str) -> bool:
        """Return whether a text is marked."""
        if not self._recent and not self._sorted:
            return False
        mark = hash(text)
        if mark in self._recent:
            return True
        at = bisect_left(self._sorted, mark)
        return at < len(self._sorted) and self._sorted[at] == mark
