"""Hold the first of very many names in memory that does not grow with their number."""

import heapq
from collections.abc import Iterator


class Smallest:
    """The smallest of the texts that were added and not yet taken: fewer than twice ``most``.

    ``cut`` is the smallest text that was dropped, None if none was. Larger texts are dropped as
    well, so that all there is below the cut is held.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[str] = []
        self.cut: str | None = None

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __iter__(self) -> Iterator[str]:
        return iter(self._heap)

    @property
    def first(self) -> str:
        """Return the smallest that is held."""
        return self._heap[0]

    def add(self, text: str) -> None:
        """Add one, which may drop it or larger ones."""
        if self.cut is not None and text >= self.cut:
            return
        heapq.heappush(self._heap, text)
        if len(self._heap) >= 2 * self._most:
            self._heap.sort()
            self.cut = self._heap[self._most]
            del self._heap[self._most :]

    def pop(self) -> str:
        """Take the smallest."""
        return heapq.heappop(self._heap)

    def pop_all(self) -> list[str]:
        """Take all that are held."""
        taken, self._heap = self._heap, []
        return taken

    def remove(self, text: str) -> None:
        """Take one that is held."""
        self._heap.remove(text)
        heapq.heapify(self._heap)

    def forget_cut(self) -> str | None:
        """Return the cut, and start without one: what was dropped is about to be added again."""
        cut, self.cut = self.cut, None
        return cut

    def clear(self) -> None:
        """Take all, and start without a cut."""
        self._heap.clear()
        self.cut = None
