"""Calls in threads, for system calls that a dead disk or server may hold up for ever."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue


class Call:
    """One call of a function by a thread, as soon as one is free."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.is_done = False
        self._started_at = time.monotonic()

    def age_seconds(self) -> float:
        """Return how long ago the call was asked for."""
        return time.monotonic() - self._started_at


class Threads:
    """Threads that are started as they are needed, and stay until the process ends."""

    def __init__(self, limit: int, wake: Callable[[], object]) -> None:
        """Start up to ``limit`` threads; each calls ``wake`` after a call."""
        self._limit = limit
        self._wake = wake
        self._count = 0
        self._unfinished: list[Call] = []
        self._queue: SimpleQueue[Call] = SimpleQueue()

    def has_free(self) -> bool:
        """Return whether a thread is free for a call; starts one if it can."""
        self._unfinished = [call for call in self._unfinished if not call.is_done]
        if self._count > len(self._unfinished):
            return True
        if self._count >= self._limit:
            return False
        try:
            threading.Thread(target=self._run, daemon=True).start()
        except RuntimeError:  # no more processes for this user, and a thread counts as one
            return False
        self._count += 1
        return True

    def can_call(self) -> bool:
        """Return whether there is a thread at all."""
        return self.has_free() or self._count > 0

    def call(self, function: Callable[[], object]) -> Call:
        """Queue a function for the next thread that is free."""
        call = Call(function)
        self._unfinished.append(call)
        self._queue.put(call)
        return call

    def _run(self) -> None:
        while True:
            call = self._queue.get()
            try:
                with suppress(OSError):
                    call.function()
            finally:
                # RACE: the process looks at once when it is woken, and would not look again.
                call.is_done = True
                self._wake()
