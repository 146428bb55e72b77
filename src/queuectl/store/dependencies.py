"""Jobs that wait for others: place them, and release them when those have ended.

A job waits in ``blocked/PARENT/ID.json`` under one of the jobs that it waits for. When that has
ended it moves on to ``pending/``, or under the next that it waits for. All of this happens while
pending.lock is held (rule 7); a directory goes when it is empty, and is made again when needed.

A job is placed before its parent is looked at once more, and a parent has moved before its children
are looked for: one of the two sees the other. What is missed all the same, because a process was
killed in between, the sweep of idle workers repairs.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from queuectl.clock import utc_now
from queuectl.document import NewerSchema
from queuectl.errors import BadDataError, QueuectlError, StoreError
from queuectl.job import State
from queuectl.policy import waits_for
from queuectl.store import files, private
from queuectl.store.core import Core
from queuectl.store.files import store_errors
from queuectl.store.names import blocked_name, filed_name, pending_name

_AT_ONCE = 100  # so many move while pending.lock is held, then others have a turn
_ATTEMPTS = 100


class Dependencies:
    """The blocked jobs of one store, and their way out."""

    def __init__(self, core: Core) -> None:
        self._dir = core.directory
        self._documents = core.documents
        self._index = core.index
        self._lock = core.lock
        # Of a directory in which all stayed, though the parent had ended: that end, and when the
        # directory last changed. For the sweep, which would read thousands again and again.
        self._staying: dict[str, tuple[State, int]] = {}

    # --- placing ---

    def put(self, source: str, name: str, job_id: str, parent: str) -> None:
        """Move a document of a directory under a parent. Raises: OSError, UnsafeStore."""
        source_fd = self._dir.fd(source)
        for _ in range(_ATTEMPTS):
            fd = self._index.open_parent(parent)
            if fd is None:
                # Somebody else may make it, or remove it, meanwhile: it is looked at again.
                with suppress(FileExistsError, FileNotFoundError):
                    private.make_private(parent, self._dir.fd(State.BLOCKED))
                continue
            try:
                if source == "tmp":  # it is new, and no other has its id
                    os.rename(name, filed_name(job_id), src_dir_fd=source_fd, dst_dir_fd=fd)
                    return
                # What is there already must not be lost with a new directory that it moves to.
                files.sync_directory(self._dir.fd(State.BLOCKED))
                files.move_new(source_fd, name, fd, filed_name(job_id))
            except FileExistsError:
                self._documents.make_way(State.BLOCKED, blocked_name(parent, job_id))
            except FileNotFoundError:
                # RACE: the directory was empty until now, and a sweep has removed it: make it
                # again. (test_directory_removed_while_a_child_is_placed)
                if not self._dir.exists(source, name):
                    raise
            else:
                return
            finally:
                os.close(fd)
        raise StoreError(
            f"{self._dir.location}/{State.BLOCKED}/{parent} is no directory: remove it"
        )

    def sync(self, parents: Collection[str]) -> None:
        """Make what was put under parents durable, and the directories made for it."""
        blocked_fd = self._dir.fd(State.BLOCKED)
        if len(parents) < files.MANY or not files.sync_file_system(blocked_fd):
            for parent in parents:
                with files.closing(self._index.open_parent(parent)) as fd:
                    if fd is not None:
                        files.sync_directory(fd)
        files.sync_directory(blocked_fd)

    def look_again(self, places: Mapping[str, str], found: Mapping[str, State]) -> None:
        """Release children whose parent has ended while they were placed."""
        # RACE: a parent that ends in this moment has looked for its children already; see
        # test_parent_that_ends_while_a_child_is_placed.
        for parent in dict.fromkeys(places.values()):
            if self._index.end_of(parent) is not found.get(parent):
                self.release(parent)

    # --- releasing ---

    def release_children(self, ended: Collection[str]) -> None:
        """Release jobs that wait for jobs that have just ended; one system call if none do."""
        blocked_fd = self._dir.fd(State.BLOCKED)
        # A directory has two links, and one for each directory in it if the file system counts.
        if not ended or os.fstat(blocked_fd).st_nlink == 2:
            return
        for job_id in ended:
            if self._dir.exists(State.BLOCKED, job_id):
                # What cannot be done now, the sweep of idle workers repeats, and says why.
                with suppress(QueuectlError, OSError):
                    self.release(job_id)

    def release(self, parent: str) -> None:
        """Release jobs that waited for a parent, if it has ended; the rest stays.

        Raises: StoreError, UnsafeStore, ConfigError.
        """
        ended = self._index.end_of(parent)
        if ended is not None:
            self._release_all(parent, ended)

    def _release_all(self, parent: str, ended: State) -> bool:
        """Release the children of a parent that has ended; return whether all of them stay."""
        if self._changed_at(parent) is None:
            return False
        with store_errors(f"{self._dir.location}/{ended} cannot be written"):
            # The end of the parent is durable before its children move: else a power failure could
            # run it again after them.
            files.sync_directory(self._dir.fd(ended))
        children = list(self._index.children(parent))
        all_stay = True
        for start in range(0, len(children), _AT_ONCE):
            all_stay &= self._release_some(parent, children[start : start + _AT_ONCE])
        return not self._remove_directory(parent) and all_stay

    def _changed_at(self, parent: str) -> int | None:
        with files.closing(self._index.open_parent(parent)) as fd:
            return None if fd is None else os.fstat(fd).st_mtime_ns

    def _release_some(self, parent: str, children: Sequence[str]) -> bool:
        """Release some children; return whether all stay, as the parent's end demands."""
        known: dict[str, State | None] = {}

        def end_of(each: str) -> State | None:
            if each not in known:
                known[each] = self._index.end_of(each)
            return known[each]

        with self._lock.held():
            # A retry sends a parent back under the same lock.
            if end_of(parent) is None:
                return False
            under = {self._release_one(parent, job_id, end_of) for job_id in children}
            if under == {parent}:
                return True
            others = {each for each in under if each and each != parent}
            with store_errors(f"{self._dir.location}/{State.BLOCKED} cannot be written"):
                self.sync(others)
                files.sync_directory(self._dir.fd(State.PENDING))
        for other in others:
            # RACE: as for one that is new, with the parent that it waits for now; see
            # test_next_parent_that_ends_while_a_child_moves_under_it.
            if self._index.end_of(other) is not known[other]:
                self.release(other)
        return False

    def _release_one(
        self, parent: str, job_id: str, end_of: Callable[[str], State | None]
    ) -> str | None:
        """Move a child on; return the parent that it is under then, None if it is pending."""
        name = blocked_name(parent, job_id)
        with self._documents.locked(State.BLOCKED, name) as fd:
            if fd is None:
                return None
            try:
                job = self._documents.read_open(fd, job_id, utc_now())
            except NewerSchema:
                return parent
            except BadDataError as error:
                self._documents.set_aside_if_old(State.BLOCKED, name, fd, str(error))
                return None
            if parent not in job.parents:
                # Somebody has moved it here.
                job = job._replace(after=(parent, *job.after))
            under = waits_for(job, end_of, parent)
            if under is None:
                in_pending = pending_name(job.priority, job.run_at, job_id)
                self._documents.move(State.BLOCKED, name, State.PENDING, in_pending)
            elif under != parent:
                with store_errors(f"{self._dir.location}/{State.BLOCKED}/{name} cannot be moved"):
                    self.put(State.BLOCKED, name, job_id, under)
            return under

    def _remove_directory(self, parent: str) -> bool:
        """Remove the directory of a parent; return whether nothing waits there."""
        try:
            os.rmdir(parent, dir_fd=self._dir.fd(State.BLOCKED))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # not empty
        return True

    def sweep(self) -> bool:
        """Release what waits for jobs that have ended; return whether anything is still blocked."""
        staying, self._staying = self._staying, {}
        for parent in list(self._index.parents()):
            with store_errors(f"{self._dir.location}/{State.BLOCKED}/{parent} cannot be looked at"):
                ended, changed_at = self._index.end_of(parent), self._changed_at(parent)
                if ended is not None and changed_at is not None:
                    seen = (ended, changed_at)
                    if staying.get(parent) == seen or self._release_all(parent, ended):
                        self._staying[parent] = seen
            self._remove_directory(parent)
        # Some may wait now under a parent that none waited under when this began.
        return any(True for _ in self._index.identified(State.BLOCKED))
