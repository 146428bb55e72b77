"""What a process of a pool finds the next job by: a scan that all share, and its own watch."""

import os
from datetime import datetime

from queuectl.job import State
from queuectl.store import files
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory
from queuectl.store.listing import Listing, Slice
from queuectl.store.names import parse_due
from queuectl.store.watch import Watch


class Worklist:
    """The pending jobs as one process knows them; see Listing."""

    def __init__(self, directory: StoreDirectory) -> None:
        """Take the open store; nothing is scanned or watched before it is asked for."""
        self._dir = directory
        self._slice: Slice | None = None
        self._listing: Listing | None = None
        self._watch: Watch | None = None

    def close(self) -> None:
        """Free what this process has; what it shares with others stays theirs."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._slice is not None:
            self._slice.close()
            self._slice = None
        self._listing = None

    def prepare_pool(self) -> None:
        """Reserve the memory of a shared scan, and load what each worker would load for itself."""
        files.load_library()
        with store_errors(f"{self._dir.location} cannot be worked on"):
            self._slice = Slice()

    @property
    def listing(self) -> Listing:
        """Return the names to claim; the first call begins to watch."""
        if self._listing is None:
            if self._slice is None:
                with store_errors(f"{self._dir.location} cannot be worked on"):
                    self._slice = Slice()
            self._listing = Listing(lambda: self._dir.reopen("pending"), self._slice)
            # Watch before the scan, so that no arrival is missed. A new scan, since a worker
            # that died may have held a name, and since nobody noticed what came before.
            self._watch = Watch(os.path.join(self._dir.location, "pending"))
            self._listing.invalidate()
        return self._listing

    @property
    def watch(self) -> Watch:
        """Return the watch of arrivals in pending/."""
        _ = self.listing
        assert self._watch is not None
        return self._watch

    def arrivals_heard(self) -> int:
        """Return what changes when a claim hears of arrivals; see Store.arrivals_heard."""
        return 0 if self._watch is None else self._watch.times_told

    def watch_departures(self) -> None:
        """Count an end of a job in progress as an arrival from now on."""
        self.watch.add_departures(os.path.join(self._dir.location, State.PROCESSING))

    def next_due(self) -> datetime | None:
        """Return when the next known name is due; see Store.next_due."""
        due = self.listing.next_due()
        return None if due is None else parse_due(due)
