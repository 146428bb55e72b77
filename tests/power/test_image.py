"""Copies of a real file system's image, each as a power failure leaves it, hold what was promised.

The image lies on a loop device. What its file system has made durable is in the backing file; a
copy of that file while it is in use is what a machine finds that has lost its power.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.jobs import LATER, NOON, decide, drain, ended, make_job

from queuectl.errors import QueuectlError
from queuectl.job import Outcome, State
from queuectl.store import open_store

MOMENTS = int(os.environ.get("QUEUECTL_TEST_MOMENTS", "30"))
_IMAGE_BYTES = {"ext4": 64 << 20, "xfs": 320 << 20, "btrfs": 128 << 20}
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_ROUND = 10  # so many copies are made of one image, before it fills up
_PROMISES_BYTES = 1 << 20
_PRODUCERS, _WORKERS = 2, 2


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """Mount an image, as a machine does that starts again."""
    # Not below pytest's own directories: a run that is killed leaves its mount behind, and then
    # pytest could not clear them away in any later run.
    on = Path(tempfile.mkdtemp(prefix="queuectl-disk-"))
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(on)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        on.rmdir()
        if "loop" in done.stderr:
            pytest.skip(f"no loop device: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    try:
        yield on
    finally:
        subprocess.run(["umount", str(on)], check=True, capture_output=True)
        on.rmdir()


def produce(location: str, number: int, promises: int) -> None:
    """Add jobs, alone and together, and write down each id when it is promised."""
    store = open_store(location, create=True)
    chance = random.Random(number)
    count = 0
    while True:
        ids = [f"p{number}-{count + each}" for each in range(chance.choice((1, 1, 1, 3, 20)))]
        count += len(ids)
        jobs = [make_job(job_id, max_retries=1 + count % 3) for job_id in ids]
        store.add(jobs, chosen=ids if chance.random() < 0.3 else ())
        os.write(promises, "".join(f"{job_id}\n" for job_id in ids).encode())
        while len(os.listdir(os.path.join(location, "pending"))) > 100:
            time.sleep(0.001)


def work(location: str, number: int) -> None:
    """Claim and settle, alone and together, with every end that there is; now and then retry."""
    store = open_store(location, create=True)
    chance = random.Random(number)
    while True:
        claims = []
        for _ in range(chance.choice((1, 1, 2, 5))):
            claim = store.claim(LATER)
            if claim is not None:
                claims.append(claim)
        if claims and chance.random() < 0.1:
            store.give_back(claims.pop())
        outcomes = (Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)
        store.settle([ended(claim, chance.choice(outcomes)) for claim in claims])
        for claim in claims:
            if chance.random() < 0.2:
                with suppress(QueuectlError):
                    store.retry(claim.job.id, [State.DEAD, State.CANCELLED], NOON)
        if not claims:
            time.sleep(0.001)


@contextmanager
def busy(location: str, promises: Path) -> Iterator[list[int]]:
    """Let producers and workers be at work on a store until the end of the block."""
    promised = os.open(promises, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pids = []
    try:
        open_store(location, create=True).close()
        for number in range(_PRODUCERS + _WORKERS):
            pid = os.fork()
            if pid == 0:
                try:
                    if number < _PRODUCERS:
                        produce(location, number, promised)
                    else:
                        work(location, number)
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
        os.close(promised)


def copy(image: Path, to: Path) -> None:
    """Copy an image as it is, while those that write to it are stopped by the caller."""
    shutil.copyfile(image, to)


def check(location: Path, promised: list[str]) -> None:
    """Check that each job that was promised is there, whole and once, and drain the store."""
    store = open_store(str(location))
    try:
        store.recover(decide)
        assert os.listdir(location / "corrupt") == []
        _check_once(location, promised)
        drain(store)
        _check_once(location, promised)
    finally:
        store.close()


def _check_once(location: Path, promised: list[str]) -> None:
    found: list[str] = []
    store = open_store(str(location))
    for state in State:
        for entry in store.entries(state, LATER):
            job = store.read(entry)
            assert job is not None
            assert job.command == f"run {entry.id}", "it has another job's words"
            assert [each.number for each in job.history] == list(range(1, len(job.history) + 1))
            found.append(entry.id)
    store.close()
    assert len(found) == len(set(found)), "a job is there twice"
    assert set(promised) <= set(found), "a job is lost"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' loop devices")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount an image")
@pytest.mark.timeout(60 + 4 * MOMENTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside xdist's threads
@pytest.mark.parametrize("kind", _MAKE)
def test_image_copied_at_any_moment(tmp_path: Path, kind: str) -> None:
    """Each copy of a disk in use, once mounted, holds what was promised before it was made."""
    make = _MAKE[kind]
    if shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is not installed")
    moments = MOMENTS if kind == "ext4" else MOMENTS // 5
    chance = random.Random()
    for start in range(0, moments, _ROUND):
        image, promises = tmp_path / f"image-{start}", tmp_path / f"promises-{start}"
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES[kind])
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        copies = []
        with (
            mounted(image) as disk,
            busy(str(disk / "store"), promises) as pids,
        ):
            for number in range(start, min(start + _ROUND, moments)):
                time.sleep(chance.uniform(0.02, 0.25))  # the moment is any
                promised = promises.read_text().split()
                copies.append((tmp_path / f"copy-{number}", promised))
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                copy(image, copies[-1][0])
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
        for copied, promised in copies:
            with mounted(copied) as disk:
                check(disk / "store", promised)
            copied.unlink()
        image.unlink()
