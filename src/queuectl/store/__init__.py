"""Keep jobs: one protocol, and a store that keeps it for each kind of place."""

import os
import re
from typing import TYPE_CHECKING

from queuectl.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from queuectl.store.base import Adder, Store

_SCHEME = re.compile("([A-Za-z0-9][A-Za-z0-9+.-]*)://")


def absolute(location: str) -> str:
    """Return the absolute path of a store's directory; a URL as it is.

    Absolute, since a job that asks for $QUEUECTL_STORE runs in a directory of its own. The ~ is for
    a crontab or a unit file, where no shell has replaced it.
    Raises: ConfigError where ~ stands for nothing, UsageError where ~USER does.
    """
    if _SCHEME.match(location):
        return location
    return os.path.abspath(_expanded(location) if location.startswith("~") else location)


def _expanded(location: str) -> str:
    from queuectl.store import files

    user = location[1:].partition("/")[0]
    if user:
        path = os.path.expanduser(location)
        if path == location:
            raise UsageError(
                f"the store {location} cannot be found: there is no user {user!r}; a directory"
                f" that is called so is ./{location}"
            )
        return path
    home = files.home_directory()
    if home is None:
        raise ConfigError(
            f"the store {location} cannot be found, since HOME is no absolute path and this user"
            " has no other home directory: set HOME, or give --store a directory"
        )
    return home.rstrip("/") + location[1:] or "/"


def open_store(location: str, *, create: bool = False) -> "Store":
    """Open the store at a directory or a URL; ``create`` makes it where it is not there.

    Raises: StoreUnavailable, UnsafeStore, ConfigError (a newer format, a kind that is not known).
    """
    path = _path(location)
    from queuectl.store.directory import DirectoryStore

    return DirectoryStore(path, create=create)


def open_to_add(location: str, *, create: bool = False) -> "Adder":
    """Open a store as open_store does, but only to add jobs: that loads half as much."""
    path = _path(location)
    from queuectl.store.adding import Adding

    return Adding(path, create=create)


def load_all() -> None:
    """Load what a program that lives long may ever need of a store.

    Its files may be replaced by those of another version while it runs.
    """
    import heapq  # noqa: F401

    from queuectl.store import blocked, directory, holders, listing, setback, watch  # noqa: F401

    watch.load()


def _path(location: str) -> str:
    if found := _SCHEME.match(location):
        raise ConfigError(f"{found[1]}:// is no store that is supported: give a directory")
    return absolute(location)
