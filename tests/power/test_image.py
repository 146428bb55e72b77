"""Clones of a real file system's image, each as a power failure leaves it, hold what was promised.

The image lies on a loop device. What its file system has made durable is in the backing file; that
file as it is at one moment is what a machine finds that has lost its power.
"""

import errno
import fcntl
import logging
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.disks import MAKE, in_memory, make_image, mounted, needs_mounts
from tests.jobs import LATER, NOON, claim_next, decide, drain, ended, make_job, settle
from tests.power.disk import quick
from tests.process.support import proc_stat, until

from queuectl.errors import QueuectlError
from queuectl.job import Outcome, State
from queuectl.store import open_store
from queuectl.store.protocol import Store

MOMENTS = int(os.environ.get("QUEUECTL_TEST_MOMENTS", "30"))
_IMAGE_BYTES = 64 << 20
_ROUND = 10  # so many clones are made of one image, before it fills up
_SHELF_BYTES = 4 << 30
_FICLONE = 0x40049409  # ioctl_ficlone(2)
_NO_CLONES = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV)
_PRODUCERS, _WORKERS = 2, 2
_LOG = logging.getLogger(__name__)


class Book(NamedTuple):
    """Be what was told until a moment: jobs added and deleted, and attempts that ran."""

    added: frozenset[str]
    deleted: frozenset[str]
    ran: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "Book":
        """Return what stands in a file, a word with its sign on each line."""
        words = path.read_text().split()
        return cls(*(frozenset(w[1:] for w in words if w[0] == sign) for sign in "+-@"))


@contextmanager
def shelf() -> Iterator[Path]:
    """Make a place in memory for images, where a file is cloned in one step if that can be had."""
    with in_memory() as memory:
        known = Path("/proc/filesystems").read_text().split()
        if shutil.which("mkfs.xfs") is None or "xfs" not in known:
            yield memory
            return
        make_image("xfs", memory / "image", _SHELF_BYTES)
        with mounted("-o", "loop", str(memory / "image")) as disk:
            yield disk


def clone(image: Path, to: Path, writers: list[int]) -> None:
    """Copy an image as it is at one moment.

    A copy that took its time would hold a later write without an earlier one, which no flushed disk
    does. So where the file cannot be cloned in one step, those that write are stopped, and each of
    their calls has come to its end.
    """
    with image.open("rb") as source, to.open("wb") as target:
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError as error:
            if error.errno not in _NO_CLONES:
                raise
        else:
            return
    for pid in writers:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(proc_stat(pid)[0] == "T" for pid in writers), "those that write are stopped")
    shutil.copyfile(image, to)
    for pid in writers:
        os.kill(pid, signal.SIGCONT)


def produce(location: str, number: int, book: int) -> None:
    """Add jobs, alone and together, and write down each id when it is promised."""
    store = open_store(location, create=True)
    chance = random.Random()
    count = 0
    while True:
        ids = [f"p{number}-{count + each}" for each in range(chance.choice((1, 1, 1, 3, 20)))]
        parents = (f"p{number}-{count - 1}",) if count and chance.random() < 0.2 else ()
        count += len(ids)
        jobs = [make_job(each, max_retries=1 + count % 3, after_any=parents) for each in ids]
        with suppress(QueuectlError):  # the parent was purged meanwhile, or the job itself
            store.add(jobs, chosen=ids if chance.random() < 0.3 else ())
            os.write(book, "".join(f"+{job_id}\n" for job_id in ids).encode())
            if chance.random() < 0.1:
                list(store.cancel([ids[-1]]))
        while len(os.listdir(os.path.join(location, "pending"))) > 100:
            time.sleep(0.001)


def work(location: str, book: int) -> None:
    """Claim and settle, alone and together, with every end there is; now and then retry or purge.

    Each attempt is written down before it is settled, each job that is deleted before it goes.
    """
    store = open_store(location, create=True)
    store.queue.register(f"w-{os.getpid()}", NOON)
    chance = random.Random()
    while True:
        claims = []
        for _ in range(chance.choice((1, 1, 2, 5))):
            claim = claim_next(store, LATER)
            if claim is not None:
                claims.append(claim)
        if claims and chance.random() < 0.1:
            store.queue.give_back(claims.pop())
        os.write(book, "".join(f"@{each.job.id}.{each.attempt}\n" for each in claims).encode())
        outcomes = (Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)
        settlements = [ended(claim, chance.choice(outcomes)) for claim in claims]
        settle(store, settlements)
        for _, job in settlements:
            with suppress(QueuectlError):
                if chance.random() < 0.2:
                    store.retry(job.id, [State.DEAD, State.CANCELLED], NOON)
                elif job.state is State.COMPLETED and chance.random() < 0.2:
                    os.write(book, f"-{job.id}\n".encode())
                    store.purging.purge(job.id, State.COMPLETED)
        if not claims:
            time.sleep(0.001)


@contextmanager
def busy(location: str, book: Path) -> Iterator[list[int]]:
    """Let producers and workers be at work on a store until the end of the block."""
    told = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pids = []
    try:
        open_store(location, create=True).close()
        for number in range(_PRODUCERS + _WORKERS):
            pid = os.fork()
            if pid == 0:
                try:
                    if number < _PRODUCERS:
                        produce(location, number, told)
                    else:
                        work(location, told)
                except BaseException:
                    os.write(2, traceback.format_exc().encode())
                    raise
                finally:
                    os._exit(1)
            pids.append(pid)
        yield pids
        for pid in pids:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "one of them has failed"
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        os.close(told)


def check(location: Path, before: Book, after: Book) -> None:
    """Check a disk between two readings of the book, as a worker finds it, and drain the store."""
    promised = before.added - after.deleted
    store = open_store(str(location))
    try:
        store.pool.recover(decide)
        store.pool.release_blocked()
        assert os.listdir(location / "corrupt") == []
        _check_once(store, promised, after.ran)
        ran = drain(store)
        assert len(ran) == len(set(ran)), "a job ran twice"
        _check_once(store, promised, None)
    finally:
        store.close()


def _check_once(store: Store, promised: frozenset[str], ran: frozenset[str] | None) -> None:
    found: dict[str, str] = {}
    for state in State:
        for entry in store.entries(state, LATER):
            assert entry.id not in found, f"{entry.id} is {found[entry.id]} and {state}"
            found[entry.id] = state
            job = store.read(entry)
            assert job is not None
            assert job.command == f"run {entry.id}", "it has another job's words"
            assert [each.number for each in job.history] == list(range(1, len(job.history) + 1))
            told = {f"{job.id}.{n.number}" for n in job.history if n.outcome is not Outcome.LOST}
            assert ran is None or told <= ran, "an attempt is told that did not run"
    assert promised <= found.keys(), "a job is lost"


@needs_mounts
@pytest.mark.timeout(60 + 4 * MOMENTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside xdist's threads
@pytest.mark.parametrize("kind", MAKE)
def test_image_cloned_at_any_moment(tmp_path: Path, kind: str) -> None:
    """Each clone of a disk in use, once mounted, holds what was promised before it was made."""
    chance = random.Random()
    promised = 0
    with shelf() as images:
        for start in range(0, MOMENTS, _ROUND):
            image, book = images / f"image-{start}", tmp_path / f"book-{start}"
            make_image(kind, image, _IMAGE_BYTES)
            clones = []
            with mounted("-o", "loop", str(image)) as disk, busy(str(disk / "store"), book) as pids:
                for number in range(start, min(start + _ROUND, MOMENTS)):
                    time.sleep(chance.uniform(0.02, 0.15))  # the moment is any
                    copied = images / f"clone-{number}"
                    before = Book.read(book)
                    clone(image, copied, pids)
                    clones.append((copied, before, Book.read(book)))
            for copied, before, after in clones:
                with mounted("-o", "loop", str(copied)) as disk, quick():
                    check(disk / "store", before, after)
                copied.unlink()
                promised += len(before.added - after.deleted)
            image.unlink()
    _LOG.info("%s: %d moments, %d promised jobs found, none lost", kind, MOMENTS, promised)
