"""A live worker of this process: its record in workers/, its FIFO, and what it has counted."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from queuectl.clock import format_instant, utc_now
from queuectl.job import Attempt, log_name
from queuectl.store.channel import receive
from queuectl.store.tally import counted, tally_document
from queuectl.store.values import Tally

RECORD_BYTES = 1024


class LocalWorker:
    """The record of a worker of this process, kept locked, and its FIFO."""

    def __init__(self, name: str, pool: str, now: datetime) -> None:
        """Begin idle, with nothing counted; ``fd`` and ``control_fd`` are for others to open."""
        self.name = name
        self.fd = -1  # of the record
        self.control_fd: int | None = None
        self.requests: frozenset[str] = frozenset()  # that have come to it
        self.tally = Tally()
        self._started_at = now.timestamp()
        self._runs: tuple[str, int] | None = None
        self._since = now
        worker = {"name": name, "pid": os.getpid(), "host": os.uname().nodename, "pool": pool}
        self._start = json.dumps(worker)[:-1]
        self._end = self._counts_text()

    def close(self) -> None:
        """Close the record, which frees its lock, and the FIFO."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.control_fd is not None:
            os.close(self.control_fd)
            self.control_fd = None

    def receive(self) -> frozenset[str]:
        """Return the requests that have come, those from before included."""
        if self.control_fd is not None:
            self.requests |= set(receive(self.control_fd))
        return self.requests

    def text(self) -> bytes:
        """Return the record, put together from its parts: it is written again for each job."""
        runs = '"job": null, "attempt": null'
        if self._runs is not None:
            runs = f'"job": "{self._runs[0]}", "attempt": {self._runs[1]}'
        text = f'{self._start}, "since": "{format_instant(self._since)}", {runs}, {self._end}'
        # Of one size, so that it can be written over by one call.
        return text.ljust(RECORD_BYTES - 1).encode() + b"\n"

    def _counts_text(self) -> str:
        return json.dumps({"started_at": self._started_at, **tally_document(self.tally)})[1:]

    def note(self, runs: tuple[str, int] | None, since: datetime) -> None:
        """Write into the record what the worker runs since when; None for nothing."""
        self._runs, self._since = runs, since
        with suppress(OSError):  # nobody's safety depends on it: a full disk must not cost a job
            os.pwrite(self.fd, self.text(), 0)

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts that are settled, and note that the worker is idle if its own is."""
        self.tally = counted(self.tally, attempts, time.time())
        self._end = self._counts_text()
        if self._runs is not None and log_name(*self._runs) in [each.log for each in attempts]:
            self.note(None, utc_now())
        else:
            self.note(self._runs, self._since)
