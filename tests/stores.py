"""Places that keep jobs, of each kind of store, for the tests of stores."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import filelock  # noqa: F401  (imported before a fork, not in it)
import pytest
from tests.memory_store import Memory, Session

from queuectl.store import open_store
from queuectl.store.claiming import Claimer
from queuectl.store.held_claim import HeldClaim
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim

KINDS = ("directory", "memory")
SHARED_KINDS = ("directory",)  # by any number of processes


class Place:
    """A place that keeps jobs, in a directory, which any number of processes may open."""

    def __init__(self, location: str) -> None:
        """Take what --store takes."""
        self.location = location
        self._opened: list[Store] = []

    def open(self, *, create: bool = True) -> Store:
        """Open the store once more, as another process would; it is closed after the test."""
        store = open_store(self.location, create=create)
        self._opened.append(store)
        return store

    def close(self) -> None:
        """Close what is open still."""
        for store in self._opened:
            store.close()

    def process_that(self, act: Callable[[Store], None]) -> None:
        """Open the store and act in another process, which then dies without leaving in order."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside xdist's threads
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                act(open_store(self.location, create=True))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the other process failed"


class MemoryPlace(Place):
    """A place in memory, which any number of sessions may open."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__("memory")
        self._memory = Memory()

    def open(self, *, create: bool = True) -> Store:
        """Open a session."""
        store = Session(self._memory)
        self._opened.append(store)
        return store

    def process_that(self, act: Callable[[Store], None]) -> None:
        """Open a session and act in it; it ends then as it does when its process dies."""
        store = self.open()
        act(store)
        store.close()

    def close(self) -> None:
        """Close what is open still, and free what was claimed."""
        super().close()
        self._memory.close()


def make_place(kind: str, directory: Path) -> Place:
    """Return a new, empty place of a kind; what it keeps in files lies in a directory."""
    return MemoryPlace() if kind == "memory" else Place(str(directory / "store"))


@contextmanager
def freed_claims() -> Iterator[list[Claim]]:
    """Collect what this process claims meanwhile, and free at the end what is still held."""
    made: list[Claim] = []
    claim = Claimer.claim

    def noted(self: Claimer, now: datetime, workers: Sequence[str]) -> list[Claim]:
        found = claim(self, now, workers)
        made.extend(found)
        return found

    with pytest.MonkeyPatch.context() as patch:  # its own: a test may undo what it has patched
        patch.setattr(Claimer, "claim", noted)
        yield made
    for each in made:
        if isinstance(each, HeldClaim):
            each.free()
