"""Give files that people drop into pending/ their places in the order."""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain, count

from queuectl.document import encode_job
from queuectl.errors import StoreError
from queuectl.job import DEFAULT_PRIORITY, Job, State
from queuectl.store import files
from queuectl.store.core import Core
from queuectl.store.files import store_errors
from queuectl.store.names import SUFFIX, due_text, looks_pending, name_in_pending, pending_id
from queuectl.store.pending_documents import PendingDocuments
from queuectl.store.scan import PendingScan

_AT_ONCE = 200  # that many are moved while pending.lock is held, then others have a turn
_LONGEST_BASE = 90  # an id that gets a number is cut to this, so that it stays an id


class Adopter:
    """The way of dropped files into the order of one store."""

    def __init__(self, core: Core, scan: PendingScan) -> None:
        self._core = core
        self._dir = core.directory
        self._scan = scan
        self._waiting = PendingDocuments(core, scan)

    def adopt(self, names: Collection[str], now: datetime) -> None:
        """Give files their places in the order, many at once."""
        ordered = sorted(set(names))
        for start in range(0, len(ordered), _AT_ONCE):
            self._adopt_in_halves(ordered[start : start + _AT_ONCE], now)

    def _adopt_in_halves(self, names: Sequence[str], now: datetime) -> None:
        try:
            self._adopt_some(names, now)
        except StoreError:
            if len(names) == 1:
                raise
            # Each holds two descriptors, and there may not be that many. One at a time would cost a
            # look through the queue for each.
            middle = len(names) // 2
            self._adopt_in_halves(names[:middle], now)
            self._adopt_in_halves(names[middle:], now)

    def _adopt_some(self, names: Sequence[str], now: datetime) -> None:
        held: list[tuple[str, int, Job]] = []
        try:
            with store_errors(f"{self._dir.location}/pending/{names[0]} cannot be adopted"):
                for name in names:
                    locked = self._waiting.lock(name, now)
                    if locked is None:
                        continue
                    fd, job = locked[0], None
                    try:
                        job = self._waiting.read(fd, name, name.removesuffix(SUFFIX), now)
                    finally:
                        if job is None:
                            os.close(fd)
                    if job is not None:
                        held.append((name, fd, job))
                if held:
                    self._give_places(held, now)
        finally:
            for _, fd, _ in held:
                os.close(fd)

    def _give_places(self, held: Sequence[tuple[str, int, Job]], now: datetime) -> None:
        """Record and rename files that are locked, each under an id that no other job has."""
        written: list[tuple[str, str, int]] = []
        in_tmp: set[str] = set()
        adopted: list[str] = []
        try:
            with self._core.lock.held():
                self._write(held, now, written, in_tmp)
                self._put_in_place(held, written, in_tmp, adopted)
        finally:
            for _, _, fd in written:
                os.close(fd)
            for temporary in in_tmp:
                with suppress(OSError):  # what stays in tmp/ is tidied away a day later
                    os.unlink(temporary, dir_fd=self._dir.fd("tmp"))
        for name in adopted:
            self._scan.arrived(name, due_text(now))

    def _write(
        self,
        held: Sequence[tuple[str, int, Job]],
        now: datetime,
        written: list[tuple[str, str, int]],
        in_tmp: set[str],
    ) -> None:
        """Write the documents to tmp/, durably, under the ids that they are to have."""
        tmp_fd = self._dir.fd("tmp")
        # One walk for all of them: one for each would cost the square of their number.
        fold = str.lower if self._core.lookup.ignores_case else str
        taken = self._ids_like({fold(job.id) for _, _, job in held}, fold)
        numbers: dict[str, int] = {}

        def free_id(wanted: str, name: str) -> str:
            """Return an id for the file ``name``: one that is taken gets -2, -3 and so on."""
            last = numbers.get(wanted, 1)
            for number in chain([1], count(last + 1)):
                job_id = wanted if number == 1 else f"{wanted[:_LONGEST_BASE]}-{number}"
                its_files = taken.setdefault(fold(job_id), set())
                if not its_files - {name} and self._core.index.end_of(job_id) is None:
                    break
            numbers[wanted] = max(last, number)
            its_files.add("")
            return job_id

        for name, _, job in held:
            placed = job._replace(
                id=free_id(job.id, name),
                state=State.PENDING,
                priority=DEFAULT_PRIORITY,
                run_at=now,
                updated_at=now,
            )
            temporary = self._dir.temporary("adopt")
            fd = files.write_synced(tmp_fd, temporary, encode_job(placed), sync=False)
            written.append((temporary, name_in_pending(placed), fd))
            in_tmp.add(temporary)
            files.lock(fd)  # as long as it is, nobody can claim it
        if len(written) < files.MANY or not files.sync_file_system(tmp_fd):
            files.sync_each([fd for _, _, fd in written], tmp_fd)

    def _put_in_place(
        self,
        held: Sequence[tuple[str, int, Job]],
        written: Sequence[tuple[str, str, int]],
        in_tmp: set[str],
        adopted: list[str],
    ) -> None:
        tmp_fd, pending_fd = self._dir.fd("tmp"), self._dir.fd(State.PENDING)
        for (name, fd, _), (temporary, placed_as, _) in zip(held, written, strict=True):
            # RACE: somebody, who takes no lock, has removed it meanwhile; see
            # test_hand_that_removes_a_file_while_it_is_adopted.
            if files.names_inode(pending_fd, name, os.fstat(fd)):
                os.rename(temporary, name, src_dir_fd=tmp_fd, dst_dir_fd=pending_fd)
                in_tmp.remove(temporary)
                with suppress(FileNotFoundError):
                    os.rename(name, placed_as, src_dir_fd=pending_fd, dst_dir_fd=pending_fd)
                    adopted.append(placed_as)
        files.sync_directory(pending_fd)

    def _ids_like(self, ids: Collection[str], fold: Callable[[str], str]) -> dict[str, set[str]]:
        """Return which of the ids, plain or numbered, have not ended, each with its files.

        ``fold`` gives ids that the file system does not tell apart one text, which is compared.
        """
        bases = {each[:_LONGEST_BASE] for each in ids}
        found: list[tuple[str, str]] = []

        def look(named: Iterable[tuple[str, str]]) -> None:
            for each, name in named:
                job_id = fold(each)
                if job_id in ids or job_id.rpartition("-")[0] in bases:
                    found.append((job_id, name))

        # As jobs move (rule 7). Whether a dropped file is one is asked of few: there may be many.
        look(self._core.index.identified(State.BLOCKED))
        look(
            (pending_id(name) if looks_pending(name) else name.removesuffix(SUFFIX), name)
            for name in self._dir.names(State.PENDING)
        )
        files_of: dict[str, set[str]] = {}
        for job_id, name in found:
            if "/" in name or looks_pending(name) or self._core.index.is_dropped(name):
                files_of.setdefault(job_id, set()).add(name)
        found.clear()
        look(self._core.index.identified(State.PROCESSING))
        for job_id, name in found:
            files_of.setdefault(job_id, set()).add(name)
        return files_of
