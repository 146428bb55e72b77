"""Keep jobs: one protocol, and a store that keeps it for each kind of place."""

from queuectl.errors import ConfigError
from queuectl.store.base import Store


def open_store(location: str, *, create: bool = False) -> Store:
    """Open the store at a directory or a URL; ``create`` makes it where it is not there.

    Raises: StoreUnavailable, UnsafeStore, ConfigError (a newer format, a kind that is not known).
    """
    scheme, separator, _ = location.partition("://")
    if separator and scheme.isalnum():
        raise ConfigError(f"a {scheme}:// store is not supported: give a directory")
    from queuectl.store.directory import DirectoryStore

    return DirectoryStore(location, create=create)
