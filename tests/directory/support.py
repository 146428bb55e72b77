"""Names and contents of files in a directory store, as its tests need them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.jobs import NOON

from queuectl.clock import later
from queuectl.store.names import pending_name


def name_of(job_id: str, index: int = 0) -> str:
    """Return the name under which the index-th job of a batch waits."""
    return pending_name(5, later(NOON, index / 1_000_000), job_id)


Before = Callable[..., None]


WHOLE = '{"command": "echo hi"}'


TORN = '{"command": "echo h'


def names(directory: Path) -> list[str]:
    """Return the names in a directory, sorted."""
    return sorted(os.listdir(directory))


def grow_old(path: Path, seconds: float = 10.0) -> None:
    """Make a file look as if nobody had written to it for a while."""
    at = time.time() - seconds
    os.utime(path, (at, at), follow_symlinks=False)
