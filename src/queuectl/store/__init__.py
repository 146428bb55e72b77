"""Keep jobs: one protocol, and a store that keeps it for each kind of place."""

import os
import re
from typing import TYPE_CHECKING

from queuectl.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.store.doctor.case import Finding
    from queuectl.store.protocol import Adder, Store

_SCHEME = re.compile("([A-Za-z0-9][A-Za-z0-9+.-]*)://")


def absolute(location: str) -> str:
    """Return the absolute path of a store's directory.

    Absolute, since a job that asks for $QUEUECTL_STORE runs in a directory of its own. The ~ is for
    a crontab or a unit file, where no shell has replaced it.
    Raises: ConfigError for a URL and if ~ stands for nothing, UsageError if ~USER does.
    """
    if found := _SCHEME.match(location):
        raise ConfigError(f"a store at a {found[1]}:// URL is not supported; give a directory")
    return os.path.abspath(_expanded(location) if location.startswith("~") else location)


def _expanded(location: str) -> str:
    from queuectl.store import private

    user = location[1:].partition("/")[0]
    if user:
        path = os.path.expanduser(location)
        if path == location:
            raise UsageError(
                f"the store {location} cannot be found: there is no user {user!r}; a directory"
                f" that is called so is ./{location}"
            )
        return path
    home = private.home_directory()
    if home is None:
        raise ConfigError(
            f"the store {location} cannot be found, since HOME is no absolute path and this user"
            " has no other home directory: set HOME, or give --store a directory"
        )
    return home.rstrip("/") + location[1:] or "/"


def open_store(location: str, *, create: bool = False) -> "Store":
    """Open the store in a directory; ``create`` makes a missing one.

    Raises: StoreUnavailable, UnsafeStore, ConfigError (a newer format, a URL).
    """
    from queuectl.store.directory import DirectoryStore

    return DirectoryStore(absolute(location), create=create)


def open_to_add(location: str, *, create: bool = False) -> "Adder":
    """Open a store as open_store does, but only to add jobs: that loads half as much."""
    from queuectl.store.adding import DirectoryAdder

    return DirectoryAdder(absolute(location), create=create)


def examine(location: str, *, repair: bool) -> "Iterator[Finding]":
    """Yield what is wrong with a store, and repair it if ``repair``.

    Raises: as open_store for what is no store, a newer one, or somebody else's.
    """
    from queuectl.store import doctor

    return doctor.examine(location, repair=repair)


def load_all() -> None:
    """Load what a program that lives long may ever need of a store.

    Its files may be replaced by those of another version while it runs.
    """
    import heapq  # noqa: F401

    from queuectl.store import (  # noqa: F401
        cancelling,
        chosen_ids,
        claiming,
        directory,
        holders,
        pool,
        purging,
        queue,
        recovery,
        retrying,
        setback,
        settling,
        waiting,
        watch,
    )

    watch.load()
