"""The jobs of a store by the names of their files; no document is opened to read it."""

import os
import stat
from collections.abc import Collection, Iterator

from queuectl.clock import from_timestamp
from queuectl.job import DEFAULT_PRIORITY, FINISHED, State
from queuectl.store import files, private
from queuectl.store.documents import Documents
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import (
    PENDING_ID_AT,
    blocked_name,
    filed_name,
    id_in_name,
    is_pending_name,
    is_stranger,
    looks_pending,
    parse_blocked,
    parse_due,
    parse_filed,
    parse_processing,
    pending_due,
    pending_id,
    pending_priority,
)
from queuectl.store.values import Entry

_FEW_IDS = 16


class Index:
    """The names in the state directories of one store, as ids of jobs."""

    def __init__(self, directory: StoreDirectory, documents: Documents) -> None:
        self._dir = directory
        self._documents = documents

    def identified(self, state: State) -> Iterator[tuple[str, str]]:
        """Stream id and name of each job in a state."""
        if state is State.BLOCKED:
            for parent in self.parents():
                for job_id in self.children(parent):
                    yield job_id, blocked_name(parent, job_id)
            return
        for name in self._dir.names(state):
            if state is State.PENDING:
                if looks_pending(name) and name.endswith(".json"):
                    yield pending_id(name), name
                elif self.is_dropped(name):
                    yield name[:-5], name
            elif state is State.PROCESSING:
                parsed = parse_processing(name)
                if parsed is not None and self._documents.is_document(state, name):
                    yield parsed[0], name
            else:
                filed = parse_filed(name)
                if filed is not None:
                    yield filed, name

    def identified_as(self, state: State, ids: Collection[str]) -> Iterator[tuple[str, str]]:
        """Stream id and name of the jobs in a state that have one of the ids."""
        if state is not State.PENDING or len(ids) > _FEW_IDS:
            yield from (each for each in self.identified(state) if each[0] in ids)
            return
        # Of very many pending names nearly none is wanted, and how a name ends is seen at once.
        ends = tuple(map(filed_name, ids))
        for name in self._dir.names(state):
            if name.endswith(ends):
                is_placed = looks_pending(name)
                job_id = pending_id(name) if is_placed else name[:-5]
                if job_id in ids and (is_placed or self.is_dropped(name)):
                    yield job_id, name

    def children(self, parent: str) -> Iterator[str]:
        """Stream the ids of the jobs in blocked/PARENT. Raises: UnsafeStore."""
        with files.closing(self.open_parent(parent)) as fd:
            if fd is None:
                return
            path = f"{self._dir.location}/{State.BLOCKED}/{parent}"
            with store_errors(f"{path} cannot be read"), os.scandir(fd) as found:
                for entry in found:
                    job_id = parse_filed(entry.name)
                    if job_id is not None:
                        yield job_id

    def open_parent(self, parent: str) -> int | None:
        """Open blocked/PARENT, None if there is no such directory. Raises: UnsafeStore."""
        path = f"{self._dir.location}/{State.BLOCKED}/{parent}"
        with store_errors(f"{path} cannot be opened"):
            return private.open_subdirectory(self._dir.fd(State.BLOCKED), parent, path)

    def end_of(self, job_id: str) -> State | None:
        """Return the state that a job has ended in, None if it has not, or does not exist."""
        for state in FINISHED:
            if self._dir.has(state) and self._dir.exists(state, filed_name(job_id)):
                return state
        return None

    def is_dropped(self, name: str) -> bool:
        """Return whether a name in pending/ is that of a document that is going to be adopted."""
        if not is_stranger(name):
            return False
        try:
            status = os.stat(name, dir_fd=self._dir.fd(State.PENDING), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode)

    def with_prefix(self, state: State, prefix: str) -> Iterator[tuple[str, str]]:
        """Stream id and name of the jobs in a state whose ids start with a prefix."""
        if state in (State.BLOCKED, State.PROCESSING):
            yield from (each for each in self.identified(state) if each[0].startswith(prefix))
            return
        # A name is looked at whole only if it can be of such an id: a long queue has many.
        for name in self._dir.names(state):
            if name.startswith(prefix, PENDING_ID_AT) or name.startswith(prefix):
                job_id = id_in_name(state, name)
                if state is State.PENDING and job_id is None and self.is_dropped(name):
                    job_id = parse_filed(name)
                if job_id is not None and job_id.startswith(prefix):
                    yield job_id, name

    def entry(self, state: State, name: str, changed: float | None = None) -> Entry:
        """Return what a name says of a job; ``changed`` is when that came to where it is."""
        if state is State.PENDING:
            if not is_pending_name(name):
                return Entry(id=name[:-5], state=state, priority=DEFAULT_PRIORITY, token=name)
            return Entry(
                id=pending_id(name),
                state=state,
                priority=pending_priority(name),
                run_at=parse_due(pending_due(name)),
                token=name,
            )
        changed_at = None if changed is None else from_timestamp(changed)
        entry = Entry(id=name[:-5], state=state, changed_at=changed_at, token=name)
        if state is State.PROCESSING:
            parsed = parse_processing(name)
            assert parsed is not None, name
            return entry._replace(id=parsed[0], attempt=parsed[1])
        if state is State.BLOCKED:
            under, job_id = parse_blocked(name)
            return entry._replace(id=job_id, parent=under, parent_state=self.end_of(under))
        return entry

    def parents(self) -> Iterator[str]:
        """Stream the ids that blocked/ has directories of; anything else there is left alone."""
        for name in self._dir.names(State.BLOCKED):
            if parse_filed(filed_name(name)) is not None:
                yield name
