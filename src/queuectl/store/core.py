"""The parts of an open store that all its other parts are built on."""

from dataclasses import dataclass

from queuectl.store.complete_walk import CompleteWalk
from queuectl.store.documents import Documents
from queuectl.store.entries import Entries
from queuectl.store.index import Index
from queuectl.store.layout import StoreDirectory
from queuectl.store.lookup import Lookup
from queuectl.store.pending_lock import PendingLock
from queuectl.store.records import WorkerRecords
from queuectl.store.registry import WorkerRegistry
from queuectl.store.settings_file import SettingsFile
from queuectl.store.totals import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """Directories, locks, documents and names of one open store."""

    directory: StoreDirectory
    lock: PendingLock
    settings: SettingsFile
    documents: Documents
    index: Index
    lookup: Lookup
    entries: Entries
    records: WorkerRecords
    registry: WorkerRegistry


def open_core(location: str, *, create: bool, any_format: bool = False) -> Core:
    """Open a store; raises as opening a StoreDirectory does."""
    directory = StoreDirectory(location, create=create, any_format=any_format)
    lock = PendingLock(directory)
    settings = SettingsFile(directory, lock)
    documents = Documents(directory, settings)
    index = Index(directory, documents)
    totals = Totals(directory)
    records = WorkerRecords(directory, documents, totals)
    return Core(
        directory=directory,
        lock=lock,
        settings=settings,
        documents=documents,
        index=index,
        lookup=Lookup(directory, documents, index, CompleteWalk(directory, index, lock)),
        entries=Entries(directory, index),
        records=records,
        registry=WorkerRegistry(directory, records, totals),
    )
