"""Whatever happens at any call of a worker, each job is run, recorded and in one place."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from tests.conftest import FAULT
from tests.crash.scenarios import snapshot
from tests.directory import damages
from tests.jobs import claimed, ended
from tests.process.support import Pool, Queue, lives, until
from tests.strace.commands import job, nothing
from tests.strace.test_commands import LEFTOVERS, copy, seen
from tests.strace.tracing import (
    LARGE,
    NEEDS_STRACE,
    Fault,
    Trace,
    injection,
    kill_held,
    some,
)

from queuectl.clock import utc_now
from queuectl.document import encode_job
from queuectl.errors import QueuectlError
from queuectl.store import open_store
from queuectl.store.doctor import examine
from queuectl.store.names import parse_processing
from queuectl.store.protocol import Store

pytestmark = [NEEDS_STRACE, pytest.mark.timeout(7200 if LARGE else 180)]

# As sitecustomize, this holds the first worker until strace has it. strace counts the calls of each
# thread for itself; other threads are told apart by syncs that they make first, in vain, and the
# worker from the shells that it starts by files that it opens first.
HOLD = """
import ctypes, os, threading, time

system = ctypes.CDLL(None)

def count_up(count):
    for _ in range(count):
        system.fsync(-1)
        system.syncfs(-1)

def hold():
    # PR_SET_PTRACER, of Yama: anybody of this user may attach.
    system.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
    try:
        with open({gate!r}) as gate:
            gate.readline()
    except FileNotFoundError:
        return
    for _ in range(16):
        os.close(os.open("/dev/null", os.O_RDONLY))
    threads = 0
    run = threading.Thread.run

    def run_apart(thread):
        nonlocal threads
        threads += 1
        count_up(64 * threads)
        if threads == 1:
            time.sleep({seconds})
        run(thread)

    threading.Thread.run = run_apart

os.register_at_fork(after_in_child=hold)
"""


def some_of_each(store: Store) -> None:
    """Let jobs wait that succeed, fail, fail for good, and wait for one another."""
    store.config.change(lambda _: {"backoff-max": "0.01"})
    store.add(
        [
            job("good"),
            job("bad", command="exit 3 # bad", max_retries=2),
            job("once", command="exit 4 # once", max_retries=1),
            job("child", after=("good",)),
        ]
    )


def many(store: Store) -> None:
    """Let jobs wait that are so short that they are settled together."""
    store.config.change(lambda _: {"backoff-max": "0.01"})
    store.add([job(f"j{number}") for number in range(7)])


def left_behind(store: Store) -> None:
    """Leave what other workers, and hands, have left."""
    store.config.change(lambda _: {"backoff-max": "0.01"})
    path = Path(store.location)
    store.add([job("ahead")])
    claim = claimed(store, utc_now())
    (path / "processing/ahead.1.json").write_bytes(encode_job(ended(claim)[1]))
    os.close(claim.pass_fds[0][0])
    damages.abandoned_file(store, path)
    damages.stale_record(store, path)
    damages.stale_fifo(store, path)
    for name, data in (
        ("processing/lost.1.json", damages.document("lost", command=": lost", cwd="/")),
        ("pending/dropped.json", b'{"command": ": dropped"}'),
        ("pending/torn.json", b'{"comm'),
    ):
        damages.write(path / name, data)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Be what a worker finds, and how each job ends when nothing comes in between."""

    name: str
    prepare: Callable[[Store], None] = nothing
    ends: dict[str, tuple[str, tuple[str, ...]]]
    first_sync_seconds: float = 0.0


GOOD = ("completed", ("succeeded",))
WORK = [
    Work(
        name="some of each",
        prepare=some_of_each,
        ends={
            ": good": GOOD,
            ": child": GOOD,
            "exit 3 # bad": ("dead", ("failed", "failed")),
            "exit 4 # once": ("dead", ("failed",)),
        },
    ),
    Work(
        name="several at once",
        prepare=many,
        ends={f": j{number}": GOOD for number in range(7)},
        first_sync_seconds=0.3,
    ),
    Work(
        name="what others have left",
        prepare=left_behind,
        ends={
            ": lost": ("completed", ("lost", "succeeded")),
            ": ahead": GOOD,
            ": dropped": GOOD,
            "unreadable": ("corrupt", ()),
        },
    ),
]


@dataclass
class Watched:
    """Be a pool whose first worker ran under strace, and has ended."""

    queue: Queue
    pool: Pool
    trace: Trace


def work(directory: Path, template: Path, seconds: float, inject: tuple[str, ...]) -> Watched:
    """Let the first worker of a pool run under strace; the supervisor is stopped meanwhile."""
    directory.mkdir()
    queue = Queue(directory)
    shutil.copytree(template, queue.store, copy_function=copy)
    gate = queue.gate()
    path = Path(gate.wait.split()[-1])
    env = queue.replacing("sitecustomize", HOLD.format(gate=str(path), seconds=seconds))
    pool = queue.pool("--drain", "--quiet", env=env)
    gate.reached()
    (worker,) = pool.pids()
    pool.signal(signal.SIGSTOP)
    path.unlink()  # the next workers are not held
    trace = Trace(queue.store)
    options = [each for each in trace.options if each != "-qq"]  # it tells when it has attached
    strace = subprocess.Popen(
        ["strace", "-f", *options, *inject, "-p", str(worker)],
        stderr=subprocess.PIPE,
        pass_fds=(trace.write_fd,),
    )
    assert strace.stderr is not None
    assert b"attached" in strace.stderr.readline()
    gate.open()
    trace.follow(lambda: kill_held(worker, strace))
    strace.stderr.close()
    strace.wait()
    until(lambda: not lives(worker), "the worker has ended")
    return Watched(queue, pool, trace)


@pytest.mark.parametrize("kind", WORK, ids=lambda work: work.name)
def test_every_call_of_a_worker(
    tmp_path: Path, kind: Work, record_property: Callable[[str, object], None]
) -> None:
    """Killed before or after a call, or refused it: no job is lost, and each attempt is right."""
    template = tmp_path / "template"
    store = open_store(str(template), create=True)
    kind.prepare(store)
    store.close()
    numbers = count(1)

    def run(*inject: str) -> Watched:
        directory = tmp_path / str(next(numbers))
        return work(directory, template, kind.first_sync_seconds, inject)

    watched = run()
    check_end(watched, kind)
    calls = [call for call in watched.trace.calls if call.name != "write"]
    tried = some(calls, WORK.index(kind))
    reached, problems = 0, []
    for call, fault in tried:
        watched = run(*injection(call, fault))
        if watched.trace.hit:
            reached += 1
            record_property(FAULT, fault.value)
        try:
            check(watched, kind, fault)
        except (AssertionError, QueuectlError) as error:
            error.add_note(f"{fault} at {call}: {watched.trace.hit}{watched.pool.talk()}")
            problems.append(error)
        else:
            shutil.rmtree(watched.queue.store.parent)
        finally:
            watched.queue.close()
    if problems:
        raise ExceptionGroup("not all is well", problems)
    # How many jobs are settled at once depends on how quick the disk is.
    assert reached > len(tried) * 0.7


def check(watched: Watched, kind: Work, fault: Fault) -> None:
    """Check what a worker has left, and that its pool, or else the next one, needs no help."""
    store = watched.queue.store
    found = snapshot(store)
    assert found.keys() == kind.ends.keys()
    assert seen(watched.queue) <= LEFTOVERS | {"abandoned file"}
    cut_off = {each: number for each, number in running(store) if number > recorded(store, each)}
    if not watched.trace.hit:
        check_end(watched, kind)
    elif not fault.kills:
        check_end(watched, kind, refused=1)
    else:
        if fault is Fault.AFTER:  # and its supervisor with it
            watched.pool.kill()
            watched.queue.drain("--quiet")
        check_end(watched, kind, cut_off=cut_off)


def running(store: Path) -> list[tuple[str, int]]:
    """Return the ids and the attempts of the jobs in processing/."""
    names = os.listdir(store / "processing")
    return [each for each in map(parse_processing, names) if each is not None]


def recorded(store: Path, job_id: str) -> int:
    """Return how many attempts are in the document of a job in processing/."""
    (path,) = (store / "processing").glob(f"{job_id}.*.json")
    return len(json.loads(path.read_text())["history"])


def check_end(
    watched: Watched, kind: Work, *, refused: int = 0, cut_off: Mapping[str, int] | None = None
) -> None:
    """Check how all jobs end, and that no attempt is lost but those that were cut off.

    So many may not have been started because the system ``refused`` something.
    """
    queue, pool, cut_off = watched.queue, watched.pool, cut_off or {}
    if pool.process.returncode is None:
        pool.signal(signal.SIGCONT)
        # One that cannot start its worker says so, and cron tries again.
        assert pool.wait() in ((0, 74) if refused else (0,))
    assert "Traceback" not in pool.talk()
    assert len(pool.talk().splitlines()) <= (3 if refused or cut_off else 1)
    while queue.ids("pending") or queue.ids("processing"):  # or due in a moment
        queue.drain("--quiet")
    end = snapshot(queue.store)
    assert end.keys() == kind.ends.keys()
    for command, (where, outcomes) in kind.ends.items():
        job = end[command]
        assert job.where == where
        assert job.attempts == sum(each != "succeeded" for each in job.outcomes)
        lost = outcomes.count("lost")
        if cut_off.get(command.rpartition(" ")[2], 0) > lost:
            lost += 1
        assert job.outcomes.count("lost") == lost, command
        refused -= job.outcomes.count("not_started")
        if "succeeded" in outcomes:
            assert job.outcomes[-1] == "succeeded"
        else:
            assert len(job.outcomes) == len(outcomes)
    assert refused >= 0
    assert all(each.repaired for each in examine(str(queue.store), repair=True))
    assert seen(queue) == set()
