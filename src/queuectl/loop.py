"""Run several coroutines in one thread: each goes on until it waits, and the kernel wakes it.

Not asyncio: importing that takes as long as 30 jobs, and a wait in it three times as long as here.
"""

import select
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from types import coroutine
from typing import NamedTuple, Protocol, TypeAlias

from queuectl.clock import poll_milliseconds

Task: TypeAlias = Coroutine["_Wait | None", None, None]


class _Wait(NamedTuple):
    fds: tuple[int, ...]
    until: float | None


class Waker(Protocol):
    """What ends the wait of the process from another thread."""

    def wake(self) -> None:
        """Wake the process."""


class Loop:
    """Be the one wait of a process, for all the coroutines that run in it."""

    def __init__(self) -> None:
        """Start with nothing to wait for."""
        self._poll = select.poll()
        self._wakers: dict[int, Callable[[], object]] = {}
        self._waiting: dict[Task, _Wait] = {}
        self._waiters: dict[int, list[Task]] = {}
        self._told: list[int] = []
        self._behind: list[Task] = []
        self._running = 0

    def wake_all(self, fd: int, then: Callable[[], object]) -> None:
        """Call ``then``, and let all go on, whenever a descriptor is readable."""
        self._wakers[fd] = then
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Do so no more."""
        del self._wakers[fd]
        self._poll.unregister(fd)

    @coroutine
    def wait(
        self, fds: Iterable[int], timeout_seconds: float | None
    ) -> Generator[_Wait, None, None]:
        """Let others run until one of ``fds`` is readable, all are woken, or the time is out."""
        if self._running == 1:
            self._wait_alone(tuple(fds), timeout_seconds)
            return
        until = timeout_seconds
        if timeout_seconds:
            until = time.monotonic() + timeout_seconds
        yield _Wait(tuple(fds), until)

    def _wait_alone(self, fds: tuple[int, ...], timeout_seconds: float | None) -> None:
        """Wait where there is no other to go on: with less ado, since it is done for each job."""
        for fd in fds:
            self._poll.register(fd, select.POLLIN)
        for fd, _ in self._poll.poll(_milliseconds(timeout_seconds)):
            if (then := self._wakers.get(fd)) is not None:
                then()
        for fd in fds:
            self._poll.unregister(fd)

    def tell(self, fd: int) -> None:
        """Let those go on that wait for a descriptor, though another has read what it had."""
        if fd in self._waiters:
            self._told.append(fd)

    @coroutine
    def others_first(self) -> Generator[None, None, None]:
        """Let those others go on first that were ready together with this one."""
        if self._running > 1:
            yield None

    async def give_way(self) -> None:
        """Let those others go on that can."""
        await self.wait((), 0.0)

    def has_ready(self) -> bool:
        """Tell whether another coroutine could go on, but for those that give way."""
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
                self._go_on(task)
            if self._behind:
                ready, self._behind = self._behind, []
            else:
                ready = self._next_ready() if self._waiting else []

    def _go_on(self, task: Task) -> None:
        try:
            wait = task.send(None)
        except StopIteration:
            self._running -= 1
            return
        if wait is None:
            self._behind.append(task)
            return
        self._waiting[task] = wait
        for fd in wait.fds:
            if fd in self._waiters:
                self._waiters[fd].append(task)
            else:
                self._waiters[fd] = [task]
                self._poll.register(fd, select.POLLIN)

    def _next_ready(self) -> list[Task]:
        """Sleep until a coroutine can go on; return all that can."""
        soonest = min(
            (each.until for each in self._waiting.values() if each.until is not None), default=None
        )
        left = None if soonest is None else soonest - time.monotonic()
        found = [fd for fd, _ in self._poll.poll(0 if self._told else _milliseconds(left))]
        ready: dict[Task, None] = {}
        for fd in self._told + found:
            if (then := self._wakers.get(fd)) is not None:
                then()
                ready |= dict.fromkeys(self._waiting)
            else:
                ready |= dict.fromkeys(self._waiters.get(fd, ()))
        self._told.clear()
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


def _milliseconds(seconds: float | None) -> int | None:
    """Return how long to poll: for ever, not at all, or some time."""
    if seconds is None:
        return None
    return poll_milliseconds(seconds) if seconds > 0 else 0
