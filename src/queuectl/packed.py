"""Hold very many values in little memory: the older ones pickled and compressed, in blocks.

A million jobs of a queue take some 20 MB so, and as objects fifty times as much. Nothing of this
leaves the process. The modules that it takes are loaded when there are many.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")

_BLOCK = 64
_PART = 8192
_MOST_NAMED = 20
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


class Sorter(Collection[T]):
    """Values in order, sorted in parts as they come and merged as they are iterated over."""

    def __init__(
        self,
        values: Iterable[T],
        *,
        key: Callable[[T], Any] | None = None,
        reverse: bool = False,
    ) -> None:
        """Take the values, and what they are ordered by."""
        self._key = key
        self._reverse = reverse
        self._parts: list[Packed[T]] = []
        part: list[T] = []
        for value in values:
            part.append(value)
            if len(part) == _PART:
                self._end(part)
        self._end(part)

    def _end(self, part: list[T]) -> None:
        part.sort(key=self._key, reverse=self._reverse)
        self._parts.append(Packed(part))
        part.clear()

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(map(len, self._parts))

    def __contains__(self, value: object) -> bool:
        """Return whether one is equal to a value."""
        return any(value in part for part in self._parts)

    def __iter__(self) -> Iterator[T]:
        """Iterate in order; what is equal comes in the order in which it was given."""
        from heapq import merge

        return merge(*self._parts, key=self._key, reverse=self._reverse)  # type: ignore[arg-type]


class Made(Collection[T]):
    """Values that are made of others, each time when they are iterated over."""

    def __init__(self, of: Collection[U], make: Callable[[Iterable[U]], Iterator[T]]) -> None:
        """Take the others, and what makes the values of them."""
        self._of: Collection[Any] = of
        self._make: Callable[[Iterable[Any]], Iterator[T]] = make

    def __len__(self) -> int:
        """Return how many there are at most."""
        return len(self._of)

    def __contains__(self, value: object) -> bool:
        """Return whether one is equal to a value."""
        return any(each == value for each in self)

    def __iter__(self) -> Iterator[T]:
        """Make them."""
        return self._make(self._of)


class Few:
    """The first of many ids, to be named in a message, and how many more there are."""

    def __init__(self) -> None:
        """Start with none."""
        self._first: list[str] = []
        self._more = 0

    def append(self, job_id: str) -> None:
        """Add an id."""
        if len(self._first) < _MOST_NAMED:
            self._first.append(job_id)
        else:
            self._more += 1

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._first)

    def __str__(self) -> str:
        """Return the ids as a message names them."""
        return " ".join(self._first) + (f" and {self._more} more" if self._more else "")


def _pack(values: list[T]) -> bytes:
    import pickle
    import zlib

    return zlib.compress(pickle.dumps(values, pickle.HIGHEST_PROTOCOL), _LEVEL)


def _unpack(block: bytes) -> list[T]:
    import pickle
    import zlib

    values: list[T] = pickle.loads(zlib.decompress(block))
    return values
