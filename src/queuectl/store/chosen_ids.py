"""Add jobs whose ids a person chose, or that wait for others (rule 7).

Jobs of which neither is so need no lock: see adding.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from queuectl.errors import DuplicateId
from queuectl.job import FINISHED, Job
from queuectl.policy import places
from queuectl.store.adding import Publication
from queuectl.store.core import Core
from queuectl.store.values import Progress

if TYPE_CHECKING:
    from queuectl.store.dependencies import Dependencies


class LockedAdder:
    """The way of new jobs into pending/ and blocked/ of one store, under pending.lock."""

    def __init__(self, core: Core, dependencies: Callable[[], "Dependencies"]) -> None:
        self._core = core
        self._get_dependencies = dependencies

    def add(
        self,
        jobs: Collection[Job],
        *,
        chosen: Collection[str] = (),
        skip_existing: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Make new jobs durable, then visible in their order; see Store.add."""
        parents = {each for job in jobs for each in job.parents}
        if not chosen and not parents:
            Publication(self._core.directory, self._core.documents, jobs).publish(progress)
        else:
            self._add_under_lock(jobs, frozenset(chosen), parents, progress, skip=skip_existing)
        return [job.id for job in jobs]

    def _add_under_lock(
        self,
        jobs: Collection[Job],
        chosen: frozenset[str],
        parents: set[str],
        progress: Progress | None,
        *,
        skip: bool,
    ) -> None:
        core = self._core
        with core.lock.held():
            if chosen:
                core.lookup.refuse_look_alikes(chosen)
                # An id may be free because its job was purged a moment ago: a power failure that
                # undid that and not the adding would leave two jobs of one id.
                for state in FINISHED:
                    core.directory.make_durable(state)
            found = core.lookup.states_of(chosen | parents if parents else chosen)
            present = found.keys() & chosen
            if present and not skip:
                first = next(job.id for job in jobs if job.id in present)
                raise DuplicateId(first, found[first])
            new = jobs
            if present:
                from queuectl.packed import Packed

                new = Packed(job for job in jobs if job.id not in present)
            dependencies = self._get_dependencies() if parents else None
            under = places(new, found) if parents else {}
            Publication(
                core.directory,
                core.documents,
                new,
                places=under,
                dependencies=dependencies,
                chosen=chosen,
            ).publish(progress)
            if dependencies is not None:
                dependencies.look_again(under, found)
