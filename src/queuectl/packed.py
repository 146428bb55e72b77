"""Hold very many values in little memory: the older ones pickled and compressed, in blocks.

A million jobs of a queue take some 20 MB so, and as objects fifty times as much. Nothing of this
leaves the process. The modules that it takes are loaded when there are many.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_BLOCK = 128
_LEVEL = 1  # half as large with 6, and five times as slow


class Packed(Collection[T]):
    """A list that can be appended to and iterated over, from either end."""

    def __init__(self, values: Iterable[T] = ()) -> None:
        """Take the first values."""
        self._blocks: list[bytes] = []
        self._last: list[T] = []
        self.extend(values)

    def append(self, value: T) -> None:
        """Add a value at the end."""
        if len(self._last) == _BLOCK:
            self._blocks.append(_pack(self._last))
            self._last.clear()
        self._last.append(value)

    def extend(self, values: Iterable[T]) -> None:
        """Add values at the end."""
        for value in values:
            self.append(value)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._blocks) * _BLOCK + len(self._last)

    def __contains__(self, value: object) -> bool:
        """Return whether one is equal to a value."""
        return any(each == value for each in self)

    def __iter__(self) -> Iterator[T]:
        """Iterate in the order in which they were added."""
        for block in self._blocks:
            yield from _unpack(block)
        yield from self._last

    def __reversed__(self) -> Iterator[T]:
        """Iterate from the last that was added to the first."""
        yield from reversed(self._last)
        for block in reversed(self._blocks):
            yield from reversed(_unpack(block))


def _pack(values: list[T]) -> bytes:
    import pickle
    import zlib

    return zlib.compress(pickle.dumps(values, pickle.HIGHEST_PROTOCOL), _LEVEL)


def _unpack(block: bytes) -> list[T]:
    import pickle
    import zlib

    values: list[T] = pickle.loads(zlib.decompress(block))
    return values
