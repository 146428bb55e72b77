"""Give each test a directory store, and the path of its files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import stores

from queuectl.store.directory import DirectoryStore
from queuectl.store.worker_protocol import Claim


class Place(stores.Place):
    """A directory that keeps jobs, which any number of processes may open."""

    @property
    def path(self) -> Path:
        """Return the directory."""
        return Path(self.location)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return a new place, of which there is no directory yet."""
    made = Place(str(tmp_path / "store"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def claims() -> Iterator[list[Claim]]:
    """Return what was claimed in this process; what is still held is freed after the test."""
    with stores.freed_claims() as made:
        yield made


@pytest.fixture
def store(place: Place) -> DirectoryStore:
    """Return the store at the test's place, opened once."""
    opened = place.open()
    assert isinstance(opened, DirectoryStore)
    return opened


@pytest.fixture
def pending(place: Place, store: DirectoryStore) -> Path:
    """Return the directory of the pending jobs."""
    return place.path / "pending"


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what lets something happen once, just before a call of a function."""

    def arrange(module: Any, name: str, happen: Callable[[], object], *, call: int = 1) -> None:
        original = getattr(module, name)
        calls = 0

        def hooked(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                happen()
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, hooked)

    return arrange
