"""Keep jobs: one protocol, and a store that keeps it for each kind of place."""

from typing import TYPE_CHECKING

from queuectl.errors import ConfigError

if TYPE_CHECKING:
    from queuectl.store.base import Adder, Store


def open_store(location: str, *, create: bool = False) -> "Store":
    """Open the store at a directory or a URL; ``create`` makes it where it is not there.

    Raises: StoreUnavailable, UnsafeStore, ConfigError (a newer format, a kind that is not known).
    """
    _check_kind(location)
    from queuectl.store.directory import DirectoryStore

    return DirectoryStore(location, create=create)


def open_to_add(location: str, *, create: bool = False) -> "Adder":
    """Open a store as open_store does, but only to add jobs: that loads half as much."""
    _check_kind(location)
    from queuectl.store.adding import Adding

    return Adding(location, create=create)


def _check_kind(location: str) -> None:
    scheme, separator, _ = location.partition("://")
    if separator and scheme.isalnum():
        raise ConfigError(f"a {scheme}:// store is not supported: give a directory")
