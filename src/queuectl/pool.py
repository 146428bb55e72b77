"""Supervise workers: fork them, replace those that die, pass on the wish to stop.

The supervisor touches no job, but for those of a worker that died. Workers are equal and claim for
themselves, so any number of pools work on one store.
"""

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from queuectl.caretaker import Caretaker
from queuectl.clock import poll_milliseconds
from queuectl.errors import QueuectlError, StoreError, TimeoutExpired
from queuectl.logs import LogDir
from queuectl.runner import is_scarcity
from queuectl.store import open_store
from queuectl.store.base import Store, WorkerRecord
from queuectl.text import encoded, printable
from queuectl.worker import Interrupts, Talk, WorkerProcess, new_names

_REPLACE_SECONDS = 1.0
_EARLY_SECONDS = 5.0
_MOST_EARLY_FAILURES = 10
EXIT_BUG = 70
EXIT_TEMPORARY = 75  # of a worker that the machine lacks something for: a full disk, say
_DEAF_SECONDS = 1.0
_STOP_SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP,
    signal.SIGCONT,
)  # fmt: skip
_SLOW_SECONDS = 5.0
_STOP_POLL_SECONDS = 0.02
_EXIT_SECONDS = 2.0
_MOST_DESCRIPTORS = 4096  # are looked at where nothing lists those that are open
_MOST_WORKERS = 16  # in one process: what a kill -9 takes down together, and its descriptors


def run_pool(
    store_location: str,
    count: int,
    *,
    drain: bool,
    unless_running: bool = False,
    detach: bool,
    quiet: bool,
) -> int:
    """Run ``count`` workers until they are told to stop, or are done; return the exit code.

    With ``detach`` it returns when they are registered, and they run on in the background. With
    ``unless_running`` none is started while other workers live.
    Raises: what open_store raises, ConfigError, and StoreError where none could be registered.
    """
    # Whoever ignores it lets the kernel reap, so that waiting for a child would fail.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    inherited = _prepare_descriptors()
    store = open_store(store_location, create=True)
    store.settings()
    store.check_pool()
    if unless_running and not store.reserve_pool():
        if not quiet:
            with suppress(OSError):
                os.write(2, b"workers are running already; started none\n")
        return 0
    supervisor = Supervisor(store, count, drain=drain, quiet=quiet)
    if detach:
        workers = "1 worker" if count == 1 else f"{count} workers"
        text = f"started {workers}" if not quiet else ""
        return _detach(store, supervisor, text, inherited)
    return supervisor.run()


def _prepare_descriptors() -> list[int]:
    """Open 0, 1 and 2 where they are closed, so that no file of ours is taken for them.

    Returns the others that we were started with; they are not for the commands.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    inherited = []
    for fd in _descriptors():
        with suppress(OSError):  # the one that listed them is closed again
            if fd > 2 and os.get_inheritable(fd):
                os.set_inheritable(fd, False)
                inherited.append(fd)
    return inherited


def _descriptors() -> Iterable[int]:
    """Return the numbers of what is open, or all that may be."""
    with suppress(OSError):  # on Linux it is a part of /proc, which may be missing
        found = [int(name) for name in os.listdir("/dev/fd")]
        if sys.platform == "linux":
            return found  # elsewhere it may show the first three only
    return range(min(os.sysconf("SC_OPEN_MAX"), _MOST_DESCRIPTORS))


def _detach(store: Store, supervisor: "Supervisor", text: str, inherited: Collection[int]) -> int:
    """Run a pool in the background; what it has inherited is not kept open beyond its start.

    Somebody may wait for the other end of a pipe, or for a lock, that of a job among them.
    """
    logs = LogDir.of(store.location)
    path, log_fd = logs.worker_log.path, logs.worker_log.open()
    ready_fd, ready_write_fd = os.pipe()
    pid = os.fork()
    if pid:
        os.close(log_fd)
        os.close(ready_write_fd)
        os.waitpid(pid, 0)
        # A byte comes from each worker that is registered, the end when all are, or are gone.
        has_started = bool(os.read(ready_fd, 1))
        while os.read(ready_fd, 512):
            pass
        os.close(ready_fd)
        if not has_started:
            raise StoreError(f"no worker has started; {path} tells why")
        if text:
            with suppress(OSError):
                told = printable(f"{text} in the background, logging to {path}")
                os.write(2, encoded(f"{told}\n"))
        return 0
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup; settings are read for each job
    if os.fork():
        os._exit(0)
    for fd in inherited:
        os.close(fd)
    os.chdir("/")
    null_fd = os.open(os.devnull, os.O_RDWR)
    for number, fd in ((0, null_fd), (1, null_fd), (2, log_fd)):
        os.dup2(fd, number)
    os.close(null_fd)
    os.close(log_fd)
    code = EXIT_BUG
    try:
        code = supervisor.run(ready_write_fd)
    except QueuectlError as error:
        Talk("supervisor", quiet=False).error(f"cannot work: {error}")
        code = error.exit_code
    except BaseException:
        Talk("supervisor", quiet=False).bug()
        raise
    finally:
        os._exit(code)


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _sizes(count: int, processors: int) -> list[int]:
    """Return how many workers each process of a pool has.

    More processes than processors only displace each other from the caches.
    """
    processes = max(min(count, processors), -(-count // _MOST_WORKERS))
    return [count * (at + 1) // processes - count * at // processes for at in range(processes)]


class _Process(NamedTuple):
    """Know a process: the names of its workers, when it started, what it shares with this one."""

    names: list[str]
    started: float
    share: object


class Supervisor:
    """Be the parent of the workers of one pool."""

    def __init__(self, store: Store, count: int, *, drain: bool, quiet: bool) -> None:
        """Take an open store, which the workers inherit."""
        self._store = store
        self._count = count
        self._drain = drain
        self._quiet = quiet
        self._talk = Talk("supervisor", quiet=quiet)
        store.on_set_aside = self._talk.error
        # What was asked for before is not for these workers.
        self._pill = store.stop_request()
        self._ready_fd = -1
        self._logs: LogDir | None = None  # where it tells, in the background
        self._processes: dict[int, _Process] = {}
        self._early_failures = 0
        self._early_code = EXIT_BUG
        self._is_patient = not drain
        self._is_short = False  # of what a worker needs at its start, and that is told
        self._is_deaf = False  # whether a stop is asked for could not be told
        self._missing: list[int] = []  # processes, each by how many workers it is to have
        self._replace_at = 0.0
        self._told: set[str] = set()
        self._is_homeless = False  # the store's directory is gone
        self._caretaker = Caretaker(store, self._talk)
        self._stopping = 0

    def run(self, ready_fd: int = -1) -> int:
        """Keep the workers going until all have left; return the exit code.

        ``ready_fd`` is closed, here and in each worker, when all of them are registered.
        """
        Talk.begin_anew()
        self._ready_fd = ready_fd
        self._logs = LogDir.of(self._store.location) if ready_fd >= 0 else None
        self._is_patient &= ready_fd < 0  # who waits for the first to start is not kept waiting
        self._interrupts = Interrupts()
        self._interrupts.hear_children()
        # Its write end is open in the supervisor alone: a worker reads its end when it is gone.
        self._alive_fd, self._alive_write_fd = os.pipe()
        sizes = _sizes(self._count, _processors())
        self._store.prepare_pool(len(sizes))
        poll = select.poll()
        poll.register(self._interrupts.fd, select.POLLIN)
        stop_fd = self._store.stop_fd()
        if stop_fd is not None:
            poll.register(stop_fd, select.POLLIN)
        self._caretaker.recover()  # before any worker finds that nothing is left to do
        gc.freeze()
        for size in sizes:
            self._fork(size)
        if ready_fd >= 0:
            os.close(ready_fd)
            self._ready_fd = -1
        try:
            return self._supervise(poll)
        finally:
            self._talk.catch_up()
            self._store.end_pool()
            # Whatever ends the supervisor, and however long it takes to say that.
            os.close(self._alive_write_fd)

    def _supervise(self, poll: select.poll) -> int:
        while True:
            # Looked at before each wait: a stop may have been asked for before the watch began.
            self._pass_on_stop()
            if self._interrupts.is_paused:
                self._pause()
            self._reap()
            self._caretaker.go_on()
            if self._logs is not None:
                with suppress(OSError):  # nothing depends on it
                    self._logs.worker_log.bound()
            if self._missing and time.monotonic() >= self._replace_at:
                self._fork(self._missing.pop())
            if not self._processes and not self._missing:
                if self._early_failures < _MOST_EARLY_FAILURES:
                    return StoreError.exit_code if self._is_homeless else 0
                return StoreError.exit_code if self._is_short else self._early_code
            poll.poll(self._timeout_ms())
            self._interrupts.drain()

    def _timeout_ms(self) -> int:
        waits = [] if self._store.stop_fd() is not None else [self._store.poll_seconds]
        if self._missing:
            waits.append(max(0.0, self._replace_at - time.monotonic()))
        if self._is_deaf:
            waits.append(_DEAF_SECONDS)
        waits += [self._caretaker.pause_seconds(), self._talk.catch_up()]
        return poll_milliseconds(min(waits))

    def _fork(self, count: int) -> None:
        """Start a process with so many workers."""
        self._replace_at = time.monotonic() + _REPLACE_SECONDS
        others = {name for process in self._processes.values() for name in process.names}
        names = new_names(count, others)
        share = self._store.prepare_worker()
        # RACE: a signal between the fork and the worker's own handlers would be lost, so it waits.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._store.end_worker(share)  # nobody would read what it tells
            self._tell_short(error.strerror)
            self._missing.append(count)
            return
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._processes[pid] = _Process(names, time.monotonic(), share)
            return
        code = EXIT_BUG
        try:
            os.setpgid(0, 0)
            os.close(self._alive_write_fd)
            Talk.begin_anew()
            process = WorkerProcess(
                self._store,
                names,
                drain=self._drain,
                quiet=self._quiet,
                supervisor_fd=self._alive_fd,
                ready_fd=self._ready_fd,
            )
            process.run()
            code = 0
        except BaseException as error:
            if _is_temporary(error):
                code = EXIT_TEMPORARY
                self._tell_short(error)
            elif isinstance(error, QueuectlError):
                Talk(names[0], quiet=False).error(f"cannot work: {error}")
                code = error.exit_code
            else:
                Talk(names[0], quiet=False).bug()
                raise
        finally:
            os._exit(code)

    def _tell_short(self, reason: object) -> None:
        if not self._is_short:
            again = ", and tries again" if self._is_patient else ""
            self._talk.error(f"cannot start a worker{again}: {reason}")
            self._is_short = True

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._talk.error(text)
            self._told.add(text)

    def _pass_on_stop(self) -> None:
        pill, self._is_deaf = self._pill, False
        try:
            pill = self._store.stop_request()
        except StoreError as error:
            self._is_deaf = True
            self._tell_once(f"cannot look for a request to stop, and tries again: {error}")
        level = min(self._interrupts.level, 2)
        if not self._is_homeless and not self._store.is_in_place():
            self._is_homeless = True
            self._talk.error(f"{self._store.location} is gone, or another directory is there")
        if self._is_homeless:
            level = max(level, 1)
        if pill is not None and pill != self._pill:
            level = max(level, 2 if pill.now else 1)
        if level > self._stopping:
            self._stopping = level
            self._missing.clear()
            self._talk.event("ends the workers" if level > 1 else "stops when the jobs are done")
            self._signal_all(signal.SIGUSR1 if level > 1 else signal.SIGUSR2)

    def _pause(self) -> None:
        """Keep the workers from taking a new job while Ctrl-Z has stopped this process."""
        self._talk.event("takes no new job before it is continued, by fg or bg")
        self._signal_all(signal.SIGTSTP)
        self._interrupts.stop_process()
        self._signal_all(signal.SIGCONT)
        self._talk.event("goes on")

    def _signal_all(self, number: int) -> None:
        for pid in self._processes:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._processes:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            process = self._processes.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            # A child that is no worker came with the exec that started us, or to us as process 1.
            if process is None:
                continue
            # One that has drained the queue is followed by the others at once, and by end_pool.
            if not (self._drain and code == 0):
                self._store.end_worker(process.share)
            if code == 0:
                continue
            self._note_failure(process, code)
            self._caretaker.recover()
            if self._early_failures == _MOST_EARLY_FAILURES:
                self._talk.error("gives up: its workers fail at their start")
                self._interrupts.level = max(self._interrupts.level, 1)
                self._missing.clear()
            elif not self._stopping:
                self._missing.append(len(process.names))

    def _note_failure(self, process: _Process, code: int) -> None:
        """Tell how a worker ended, and count it where it failed at its start.

        One that always does is not mended by starting it for ever; a disk gets room again.
        """
        self._is_short = code == EXIT_TEMPORARY
        self._early_code = code
        if not self._is_short:  # else the worker itself has told why
            were = "was" if len(process.names) == 1 else "were"
            how = (
                f"{were} killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
            )
            self._talk.error(f"{', '.join(process.names)} {how}")
        if code < 0 or time.monotonic() - process.started >= _EARLY_SECONDS:
            self._is_patient = not self._drain
            self._early_failures = 0
        elif not self._is_short:
            self._early_failures += 1
        elif not self._is_patient:
            self._early_failures = max(_MOST_EARLY_FAILURES, self._early_failures + 1)


def _is_temporary(error: BaseException) -> bool:
    """Tell whether a worker failed for want of something that may be there in a second."""
    return isinstance(error, StoreError) or (isinstance(error, OSError) and is_scarcity(error))


def stop(
    store: Store,
    *,
    now: bool,
    timeout_seconds: float | None,
    slow: Callable[[Sequence[WorkerRecord]], object] | None = None,
) -> list[str]:
    """Ask the workers that live at this moment to stop, and wait until they are gone.

    ``slow`` is called once with those that do not stop soon.
    Returns: their names, none where there were none. Raises: TimeoutExpired that names those left.
    """
    records = store.workers()
    names = sorted(record.name for record in records)
    # A record goes a moment before its process does.
    processes = _process_fds(records)
    try:
        store.request_stop(now=now)
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        waited_for, slow_at = set(names), time.monotonic() + _SLOW_SECONDS
        while at_work := [record for record in store.workers() if record.name in waited_for]:
            waited_for = {record.name for record in at_work}
            if slow is not None and time.monotonic() >= slow_at:
                slow(at_work)
                slow = None
            if deadline is not None and time.monotonic() >= deadline:
                left = ", ".join(sorted(waited_for))
                raise TimeoutExpired(f"still at work: {left}; they stop when their jobs are done")
            time.sleep(_STOP_POLL_SECONDS)
        _wait_for_ends(processes)
    finally:
        for fd in processes:
            os.close(fd)
    return names


def _process_fds(records: Iterable[WorkerRecord]) -> list[int]:
    """Open the processes of the workers that run on this host, where the system can."""
    fds = []
    host = os.uname().nodename
    for record in records:
        if record.host == host:
            with suppress(AttributeError, OSError):  # no pidfd here, or it has just ended
                fds.append(os.pidfd_open(record.pid))
    return fds


def _wait_for_ends(process_fds: Collection[int]) -> None:
    """Wait until processes have ended, but not for ever: a pid may be of another container."""
    poll = select.poll()
    for fd in process_fds:
        poll.register(fd, select.POLLIN)
    left = set(process_fds)
    deadline = time.monotonic() + _EXIT_SECONDS
    while left and (seconds := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(poll_milliseconds(seconds)):
            poll.unregister(fd)
            left.discard(fd)
