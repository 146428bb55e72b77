"""Very many values in little memory: the older ones pickled and compressed, in blocks.

A million jobs of a queue take some 20 MB so, and as objects fifty times as much. Nothing of this
leaves the process. The modules that it takes are loaded when there are many values.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
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
        self._blocks: list[bytes] = []
        self._last: list[T] = []
        for value in values:
            self.append(value)

    def append(self, value: T) -> None:
        """Add a value at the end."""
        if len(self._last) == _BLOCK:
            import pickle
            import zlib

            self._blocks.append(zlib.compress(pickle.dumps(self._last, -1), _LEVEL))
            self._last.clear()
        self._last.append(value)

    def __len__(self) -> int:
        return len(self._blocks) * _BLOCK + len(self._last)

    def __contains__(self, value: object) -> bool:
        return any(each == value for each in self)

    def __iter__(self) -> Iterator[T]:
        for block in self._blocks:
            yield from _unpack(block)
        yield from self._last

    def __reversed__(self) -> Iterator[T]:
        yield from reversed(self._last)
        for block in reversed(self._blocks):
            yield from reversed(_unpack(block))


def _unpack(block: bytes) -> list[Any]:
    import pickle
    import zlib

    values: list[Any] = pickle.loads(zlib.decompress(block))
    return values


class Sorter(Collection[T]):
    """Values in order, sorted in parts as they come and merged as they are iterated over."""

    def __init__(
        self, values: Iterable[T], *, key: Callable[[T], Any] | None = None, reverse: bool = False
    ) -> None:
        self._order: dict[str, Any] = {"key": key, "reverse": reverse}
        self._parts: list[Packed[T]] = []
        values = iter(values)
        while part := list(islice(values, _PART)):
            part.sort(**self._order)
            self._parts.append(Packed(part))
            part.clear()  # before the next one is made: one part at a time is held

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __contains__(self, value: object) -> bool:
        return any(value in part for part in self._parts)

    def __iter__(self) -> Iterator[T]:
        from heapq import merge

        return merge(*self._parts, **self._order)


class Made(Collection[T]):
    """Values that are made of others each time that they are iterated over."""

    def __init__(self, of: Collection[U], make: Callable[[Iterable[U]], Iterator[T]]) -> None:
        self._of: Collection[Any] = of
        self._make: Callable[[Collection[Any]], Iterator[T]] = make

    def __len__(self) -> int:
        return len(self._of)  # the largest possible number of values

    def __contains__(self, value: object) -> bool:
        return any(each == value for each in self)

    def __iter__(self) -> Iterator[T]:
        return self._make(self._of)


class Few:
    """The first of many ids, to be named in a message, and how many more there are."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._more = 0

    def append(self, job_id: str) -> None:
        """Add an id."""
        if len(self._first) < _MOST_NAMED:
            self._first.append(job_id)
        else:
            self._more += 1

    def __bool__(self) -> bool:
        return bool(self._first)

    def __str__(self) -> str:
        return " ".join(self._first) + (f" and {self._more} more" if self._more else "")
