"""A minimal event loop: one poll(2) for all coroutines of a process.

Not asyncio: importing that takes as long as 30 jobs, and a wait in it three times as long as here.
"""

import select
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from types import coroutine
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from queuectl.clock import poll_milliseconds

Task: TypeAlias = Coroutine["_Wait | None", None, None]
_T = TypeVar("_T")


class _Wait(NamedTuple):
    fds: tuple[int, ...]
    until: float | None  # on the monotonic clock


class Loop:
    """A scheduler of coroutines that wait for descriptors, or for their time."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._wakers: dict[int, Callable[[], object]] = {}
        self._waiting: dict[Task, _Wait] = {}
        self._waiters: dict[int, list[Task]] = {}
        self._notified: list[int] = []
        self._yielded: list[Task] = []
        self._running = 0

    def add_waker(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback`` and resume all coroutines whenever a descriptor is readable."""
        self._wakers[fd] = callback
        self._poll.register(fd, select.POLLIN)

    def remove_waker(self, fd: int) -> None:
        """Ignore a descriptor that was added by add_waker from now on."""
        del self._wakers[fd]
        self._poll.unregister(fd)

    @coroutine
    def wait(
        self, fds: Iterable[int], timeout_seconds: float | None
    ) -> Generator[_Wait, None, None]:
        """Wait until one of ``fds`` is readable, a waker wakes all, or the time is up."""
        if self._running == 1:
            self._wait_alone(tuple(fds), timeout_seconds)
            return
        until = timeout_seconds
        if timeout_seconds:
            until = time.monotonic() + timeout_seconds
        yield _Wait(tuple(fds), until)

    def _wait_alone(self, fds: tuple[int, ...], timeout_seconds: float | None) -> None:
        """Wait for the only coroutine, without the bookkeeping: this is done for each job."""
        for fd in fds:
            self._poll.register(fd, select.POLLIN)
        for fd, _ in self._poll.poll(_milliseconds(timeout_seconds)):
            if (callback := self._wakers.get(fd)) is not None:
                callback()
        for fd in fds:
            self._poll.unregister(fd)

    def notify(self, fd: int) -> None:
        """Resume the coroutines that wait for a descriptor, though another one has emptied it."""
        if fd in self._waiters:
            self._notified.append(fd)

    @coroutine
    def yield_to_ready(self) -> Generator[None, None, None]:
        """Run the other coroutines that are ready now, before this one continues."""
        if self._running > 1:
            yield None

    async def yield_now(self) -> None:
        """Look at the descriptors, and run all coroutines that are ready."""
        await self.wait((), 0.0)

    def has_ready(self) -> bool:
        """Return whether another coroutine could run, apart from coroutines that have yielded."""
        now = time.monotonic()
        return bool(self._poll.poll(0)) or any(
            each.until and each.until <= now for each in self._waiting.values()
        )

    def run(self, tasks: Iterable[Task]) -> None:
        """Run coroutines until all of them have ended. Raises: what one of them raises."""
        ready = list(tasks)
        self._running = len(ready)
        while ready:
            for task in ready:
                self._resume(task)
            if self._yielded:
                ready, self._yielded = self._yielded, []
            else:
                ready = self._next_ready() if self._waiting else []

    def _resume(self, task: Task) -> None:
        try:
            wait = task.send(None)
        except StopIteration:
            self._running -= 1
            return
        if wait is None:
            self._yielded.append(task)
            return
        self._waiting[task] = wait
        for fd in wait.fds:
            if fd in self._waiters:
                self._waiters[fd].append(task)
            else:
                self._waiters[fd] = [task]
                self._poll.register(fd, select.POLLIN)

    def _next_ready(self) -> list[Task]:
        """Sleep until a coroutine can run; return all that can."""
        soonest = min(
            (each.until for each in self._waiting.values() if each.until is not None), default=None
        )
        left = None if soonest is None else soonest - time.monotonic()
        found = [fd for fd, _ in self._poll.poll(0 if self._notified else _milliseconds(left))]
        ready: dict[Task, None] = {}
        for fd in self._notified + found:
            if (callback := self._wakers.get(fd)) is not None:
                callback()
                ready |= dict.fromkeys(self._waiting)
            else:
                ready |= dict.fromkeys(self._waiters.get(fd, ()))
        self._notified.clear()
        if soonest is not None:
            now = time.monotonic()
            for task, wait in self._waiting.items():
                if wait.until is not None and wait.until <= now:
                    ready[task] = None
        for task in ready:
            for fd in self._waiting.pop(task).fds:
                waiters = self._waiters[fd]
                waiters.remove(task)
                if not waiters:
                    del self._waiters[fd]
                    self._poll.unregister(fd)
        return list(ready)


class Batcher(Generic[_T]):
    """A call made once for all coroutines that want it at the same moment."""

    def __init__(self, loop: Loop, function: Callable[[Sequence[str]], Sequence[_T]]) -> None:
        """Use a function that takes the names of those who ask, and returns a result for each."""
        self._loop = loop
        self._function = function
        self._names: list[str] = []
        self._results: dict[str, _T] = {}

    async def call(self, name: str) -> _T:
        """Return the result for one name."""
        self._names.append(name)
        await self._loop.yield_to_ready()
        if name in self._names:
            names, self._names = self._names, []
            self._results.update(zip(names, self._function(names), strict=True))
        return self._results.pop(name)


def _milliseconds(seconds: float | None) -> int | None:
    """Return how long to poll: None for ever, 0 not to wait."""
    if seconds is None:
        return None
    return poll_milliseconds(seconds) if seconds > 0 else 0
