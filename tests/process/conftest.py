"""Give each test a store, and leave no process behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.support import Ear, Queue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """Return a user's view of an empty store; everything that runs on it ends with the test."""
    queue = Queue(tmp_path)
    yield queue
    queue.close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Return what hears a pool."""
    ear = Ear()
    yield ear
    ear.close()
