"""config.json: what was set, read again when it has changed."""

import json
import os
from collections.abc import Callable
from typing import Any

from queuectl.config import Settings, read_settings
from queuectl.errors import BadDocument, ConfigError
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory
from queuectl.store.pending_lock import PendingLock
from queuectl.strict_json import parse_object

_NAME = "config.json"


class SettingsFile:
    """The settings of one store."""

    def __init__(self, directory: StoreDirectory, lock: PendingLock) -> None:
        self._dir = directory
        self._lock = lock
        self._path = f"{directory.location}/{_NAME}"
        self._read: tuple[tuple[int, int], Settings] | None = None

    def read(self) -> dict[str, Any]:
        """Return what was set; see Configuration.read."""
        data = self._dir.read_root_file(_NAME)
        if data is None:
            return {}
        try:
            return parse_object(data)
        except BadDocument as error:
            reason = str(error).removeprefix("not a job document: ")
            raise ConfigError(f"{self._path} is broken: {reason}") from error

    def change(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Apply a change to what was set, under pending.lock."""
        with self._lock.held():
            data = json.dumps(change(self.read()), indent=2) + "\n"
            self._dir.write_root_file(_NAME, data.encode())

    def current(self) -> Settings:
        """Return the settings; see Store.settings."""
        version = self._version()
        if self._read is None or self._read[0] != version:
            self._read = (version, read_settings(self.read(), self._path))
        return self._read[1]

    def _version(self) -> tuple[int, int]:
        if self._dir.root_fd < 0:
            return 0, 0
        with store_errors(f"{self._path} cannot be read"):
            try:
                status = os.stat(_NAME, dir_fd=self._dir.root_fd, follow_symlinks=False)
            except FileNotFoundError:
                return 0, 0
        return status.st_ino, status.st_mtime_ns
