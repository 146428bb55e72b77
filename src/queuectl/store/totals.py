"""tally.json: what workers that are gone have counted."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import reduce

from queuectl.errors import BadDocument, ConfigError, StoreError
from queuectl.store import files
from queuectl.store.files import store_errors
from queuectl.store.layout import ROOT, StoreDirectory
from queuectl.store.names import filed_name, is_id
from queuectl.store.tally import joined, tally_document, tally_from, without_future
from queuectl.store.values import Tally
from queuectl.strict_json import parse_object

_NAME = "tally.json"


class Totals:
    """The counts of workers that are gone, and their names as long as a record may be left."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._dir = directory

    def read(self) -> tuple[Tally, list[str]]:
        """Return what was counted, and which of the workers that did may have a record."""
        try:
            document = parse_object(self._dir.read_root_file(_NAME) or b"{}")
            names = document.get("workers", [])
            if not isinstance(names, list) or not all(map(is_id, names)):
                raise ValueError("not the names of workers")
            return tally_from(document), names
        except (BadDocument, ConfigError, ValueError):
            return Tally(), []  # somebody has broken it: the counting starts again

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing totals and names, by the lock of the directory of the records.

        Not by pending.lock: importing filelock takes a worker longer than all else when it leaves.
        """
        what = f"{self._dir.location}/workers cannot be locked"
        with store_errors(what), files.closing(self._dir.reopen("workers")) as fd:
            files.lock(fd, wait=True)
            yield

    def add(self, tallies: Mapping[str, Tally]) -> None:
        """Add what workers have counted before their records go, once for each; '' is none."""
        if not any(tally.by_outcome for tally in tallies.values()):
            return
        with suppress(StoreError), self.locked():
            totals, names = self.read()
            totals = without_future(totals, time.time())
            new = {name: tally for name, tally in tallies.items() if name not in names}
            if not new:
                return
            names = [each for each in names if self._dir.exists("workers", filed_name(each))]
            document = {
                **tally_document(reduce(joined, new.values(), totals)),
                "workers": [*names, *filter(None, new)],
            }
            with store_errors(f"{self._dir.location}/{_NAME} cannot be written"):
                # Whole, and not durable at once: a count may be lost to a power failure.
                data = (json.dumps(document) + "\n").encode()
                os.close(self._dir.replace(data, ROOT, _NAME))
