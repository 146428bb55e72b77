"""stop_workers: the request to stop all workers, as a file in the root and a line to each."""

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from queuectl.clock import format_instant, utc_now
from queuectl.errors import BadDocument
from queuectl.store import files
from queuectl.store.channel import STOP, STOP_NOW, send
from queuectl.store.core import Core
from queuectl.store.files import store_errors
from queuectl.strict_json import parse_object

if TYPE_CHECKING:
    from queuectl.store.watch import Watch

_NAME = "stop_workers"


class StopFile(NamedTuple):
    """One stop_workers file; another file at the same path is another request."""

    inode: int
    modified_at: int
    now: bool


class StopRequests:
    """The requests to stop the workers of one store."""

    def __init__(self, core: Core) -> None:
        self._dir = core.directory
        self._records = core.records
        self._watch: Watch | None = None

    def close(self) -> None:
        """Stop watching for requests."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def request(self, *, now: bool) -> StopFile:
        """Write a new stop_workers file; see StopRequests.request."""
        document = {"now": now, "at": format_instant(utc_now())}
        # Listed before: those who start later are not asked.
        records = self._records.live()
        self._dir.write_root_file(_NAME, (json.dumps(document) + "\n").encode())
        request = self.last()
        assert request is not None
        for record in records:
            with suppress(OSError):  # its supervisor stops it, too, unless that is gone or stopped
                send(self._dir.fd("workers"), record.name, STOP_NOW if now else STOP)
        return request

    def last(self) -> StopFile | None:
        """Return the stop_workers file that is there; see StopRequests.last."""
        if self._dir.root_fd < 0:
            return None
        if self._watch is not None:
            self._watch.arrivals()
        with (
            store_errors(f"{self._dir.location}/{_NAME} cannot be read"),
            files.closing(files.open_document(self._dir.root_fd, _NAME)) as fd,
        ):
            if fd is None:
                return None
            status, now = os.fstat(fd), False
            # People may write the file, too: `touch stop_workers` asks for a graceful stop.
            with suppress(BadDocument):
                now = bool(parse_object(files.read_all(fd, 4096)).get("now", False))
        return StopFile(status.st_ino, status.st_mtime_ns, now)

    def fd(self) -> int | None:
        """Return the descriptor that is readable when a file has come; see StopRequests.fd."""
        if self._watch is None:
            from queuectl.store.watch import Watch

            self._watch = Watch(self._dir.location)
        return self._watch.fd
