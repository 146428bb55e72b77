"""Give each test a store, and leave no process behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.support import Ear, Queue
from tests.program import (
    FEW_DESCRIPTORS,
    HAS_LOCALEDEF,
    IGNORING_SIGCHLD,
    LATIN,
    in_locale,
    make_locale,
)


@pytest.fixture(scope="session")
def latin(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return what runs a command in a locale whose encoding is not UTF-8."""
    if not HAS_LOCALEDEF:
        pytest.skip("localedef, or what it makes locales from, is not here")
    directory = tmp_path_factory.mktemp("latin")
    make_locale(directory, LATIN)
    return in_locale(directory, LATIN)


@pytest.fixture
def queue(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Queue]:
    """Return a user's view of an empty store; everything that runs on it ends with the test.

    Commands are run in the setting that in_each_setting names.
    """
    prefix: tuple[str, ...] = ()
    match getattr(request, "param", "as usual"):
        case "few descriptors":
            prefix = FEW_DESCRIPTORS
        case "latin-1":
            prefix = request.getfixturevalue("latin")
        case "SIGCHLD ignored":
            prefix = IGNORING_SIGCHLD
    queue = Queue(tmp_path, prefix=prefix)
    yield queue
    queue.close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Return what hears a pool."""
    ear = Ear()
    yield ear
    ear.close()
