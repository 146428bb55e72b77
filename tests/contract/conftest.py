"""Give each test of the contract a store of every kind: the store is a parameter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stores import KINDS, SHARED_KINDS, Place, freed_claims, make_place

from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Return a new, empty place of each kind."""
    made = make_place(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=SHARED_KINDS)
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Return a new, empty place of each kind that several processes may open."""
    made = make_place(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def claims() -> Iterator[list[Claim]]:
    """Return what was claimed in this process; what is still held is freed after the test."""
    with freed_claims() as made:
        yield made


@pytest.fixture
def store(place: Place) -> Store:
    """Return the store at the test's place, opened once."""
    return place.open()
