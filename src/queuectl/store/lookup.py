"""Find jobs by their ids, or by what their ids start with.

That none which exists is missed (rule 7) is the care of complete_walk.
"""

import os
from collections.abc import Collection, Iterator
from functools import cached_property

from queuectl.errors import AmbiguousPrefix, JobNotFound, LookAlike
from queuectl.job import FINISHED, IN_ORDER, Job, State
from queuectl.store.complete_walk import CompleteWalk
from queuectl.store.documents import Documents
from queuectl.store.index import Index
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import filed_name, parse_filed
from queuectl.store.values import Entry

_LOOKS = 8


class Lookup:
    """Where the jobs of one store are, by their ids."""

    def __init__(
        self, directory: StoreDirectory, documents: Documents, index: Index, complete: CompleteWalk
    ) -> None:
        self._dir = directory
        self._documents = documents
        self._index = index
        self._complete = complete

    def _search(
        self, ids: Collection[str], except_pending: str = ""
    ) -> dict[str, tuple[State, str]]:
        """Return state and file name of each of the ids that exists; none is missed.

        ``except_pending`` is a name in pending/ that does not count.
        """
        # An id that is none must not become a path.
        wanted = {job_id for job_id in ids if parse_filed(filed_name(job_id)) is not None}
        return self._complete.look(
            lambda: self._walk(wanted, except_pending), lambda found: len(found) == len(wanted)
        )

    def _walk(self, ids: Collection[str], except_pending: str) -> dict[str, tuple[State, str]]:
        left = set(ids)
        found: dict[str, tuple[State, str]] = {}
        for state in IN_ORDER:
            if not left:
                break
            if state in FINISHED:
                for job_id in list(left) if self._dir.has(state) else ():
                    name = filed_name(job_id)
                    if self._dir.exists(state, name) and self._is_called(state, name):
                        found[job_id] = state, name
                        left.discard(job_id)
                continue
            for job_id, name in self._index.identified_as(state, frozenset(left)):
                # Two may have one id if one of them was dropped there.
                if job_id in left and (state is not State.PENDING or name != except_pending):
                    found[job_id] = state, name
                    left.discard(job_id)
                    if not left:
                        break  # of very many
        return found

    @cached_property
    def ignores_case(self) -> bool:
        """Return whether the file system takes Job.json for job.json, as on macOS."""
        try:
            found = os.stat(State.PENDING.upper(), dir_fd=self._dir.root_fd)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._dir.fd(State.PENDING)))

    def _is_called(self, state: State, name: str) -> bool:
        """Return whether a file that is found under a name has that name."""
        return not self.ignores_case or name in self._dir.names(state)

    def refuse_look_alikes(self, ids: Collection[str]) -> None:
        """Refuse new ids that the file system does not tell from each other, or from a job's.

        The files of both jobs would have one name as soon as they run. Raises: LookAlike.
        """
        if not self.ignores_case:
            return
        known: dict[str, str] = {}
        for job_id in ids:
            other = known.setdefault(job_id.lower(), job_id)
            if other != job_id:
                raise LookAlike(job_id, other)
        for state in IN_ORDER:
            for other, _ in self._index.identified(state):
                job_id = known.get(other.lower(), other)
                if job_id != other:
                    raise LookAlike(job_id, other)

    def states_of(self, ids: Collection[str]) -> dict[str, State]:
        """Return where each of the ids is that exists."""
        return {job_id: state for job_id, (state, _) in self._search(frozenset(ids)).items()}

    def find(self, job_ids: Collection[str]) -> dict[str, Entry]:
        """Return where jobs are, by their ids; see Store.find."""
        found = self._search(frozenset(job_ids))
        return {job_id: self._index.entry(*place) for job_id, place in found.items()}

    def locate(self, job_id: str, except_pending: str = "") -> tuple[State, str] | None:
        """Return where a job is and its file's name, None if there is no such job."""
        return self._search({job_id}, except_pending).get(job_id)

    def get(self, job_id: str) -> Job:
        """Return a job, its ``state`` being where it is; see Store.get."""
        job = None
        if parse_filed(filed_name(job_id)) is not None:
            job = self._complete.look(
                lambda: self._read_where_it_is(job_id), lambda job: job is not None
            )
        if job is None:
            raise JobNotFound(f"no such job: {job_id}")
        return job

    def _read_where_it_is(self, job_id: str) -> Job | None:
        """Return a job that may move on while it is looked for, None if it is not met."""
        for _ in range(_LOOKS):  # more than it can move on before it has to come back
            located = self._walk({job_id}, "").get(job_id)
            if located is None:
                return None
            job = self._documents.read(*located, job_id)
            if job is not None:
                return job
        return None

    def resolve(self, prefix: str) -> Entry:
        """Return the job whose id is ``prefix`` or, alone, starts with it; see Store.resolve."""
        if not prefix:
            raise JobNotFound("no such job: the id is empty")
        # An exact id wins, and an id that starts with a prefix is one of several if another does.
        ids, place = self._complete.look(
            lambda: self._matching(prefix), lambda found: prefix in found[0]
        )
        if place is None:
            raise JobNotFound(f"no such job: {prefix}")
        if len(ids) > 1 and prefix not in ids:
            some = sorted(ids)[:10]
            more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
            raise AmbiguousPrefix(f"{prefix!r} is ambiguous: {', '.join(some)}{more}")
        return self._index.entry(*place)

    def _matching(self, prefix: str) -> tuple[set[str], tuple[State, str] | None]:
        """Return the ids that start with a prefix, and where the first of them is.

        A job whose id is the prefix comes alone.
        """
        ids: set[str] = set()
        first: tuple[State, str] | None = None
        for state in IN_ORDER:
            for job_id, name in self._index.with_prefix(state, prefix):
                if job_id == prefix:
                    return {job_id}, (state, name)
                ids.add(job_id)
                first = first or (state, name)
        return ids, first

    def ids(self, state: State, prefix: str = "") -> Iterator[str]:
        """Stream the ids in a state that start with a prefix; see Store.ids."""
        return (job_id for job_id, _ in self._index.with_prefix(state, prefix))
