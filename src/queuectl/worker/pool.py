"""A pool of workers: the supervisor forks their processes, replaces failed ones and stops all.

The supervisor touches no job, except those whose workers died. Workers are equal and claim for
themselves, so any number of pools can work on one store.
"""

import gc
import os
import select
import signal
import time
from contextlib import suppress
from typing import NamedTuple

from queuectl.clock import poll_milliseconds
from queuectl.errors import QueuectlError, StoreError
from queuectl.nonblocking import NonBlockingWriter
from queuectl.store import open_store
from queuectl.store.logs import LogDir, logs_of
from queuectl.store.protocol import Store
from queuectl.worker.command import is_scarcity
from queuectl.worker.detach import prepare_descriptors, run_detached
from queuectl.worker.events import EventLog, ReportedProblems
from queuectl.worker.housekeeping import Housekeeping
from queuectl.worker.process import WorkerProcess, new_names
from queuectl.worker.restart import EXIT_BUG, EXIT_TEMPORARY, RestartPolicy
from queuectl.worker.signals import Stop, StopSignals

_RETRY_SECONDS = 1.0
_FORWARDED_SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP,
    signal.SIGCONT,
)  # fmt: skip
_MAX_WORKERS = 16  # in one process: what a kill -9 takes down together, and its descriptors


def run_pool(
    store_location: str,
    count: int,
    *,
    drain: bool,
    unless_running: bool = False,
    detach: bool,
    quiet: bool,
) -> int:
    """Run ``count`` workers until they are stopped, or are done; return the exit code.

    With ``detach`` it returns when they are registered, and they run in the background. With
    ``unless_running`` it starts none while other workers live.
    Raises: as open_store; ConfigError; StoreError if no worker could be registered.
    """
    # If SIGCHLD was ignored, the kernel would reap, and waiting for a child would fail.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    inherited = prepare_descriptors()
    store = open_store(store_location, create=True)
    store.settings()
    store.pool.check()
    if unless_running and not store.pool.reserve():
        if not quiet:
            with suppress(OSError):
                os.write(2, b"workers are running already; started none\n")
        return 0
    supervisor = Supervisor(store, count, drain=drain, quiet=quiet)
    if detach:
        workers = "1 worker" if count == 1 else f"{count} workers"
        text = "" if quiet else f"started {workers}"
        return run_detached(supervisor.run, logs_of(store), text, inherited)
    return supervisor.run()


class _Process(NamedTuple):
    """A worker process: the names of its workers, and its start."""

    names: list[str]
    started_at: float


class Supervisor:
    """The parent process of one pool."""

    def __init__(self, store: Store, count: int, *, drain: bool, quiet: bool) -> None:
        self._store = store
        self._count = count
        self._drain = drain
        self._quiet = quiet
        self._stderr = NonBlockingWriter(2)
        self._log = EventLog("supervisor", self._stderr, quiet=quiet)
        store.pool.report_set_aside(self._log.error)
        self._problems = ReportedProblems(self._log)
        self._housekeeping = Housekeeping(store, self._log, self._problems)
        # A request to stop that is older than this pool is not for it.
        self._old_stop_request = store.stop_requests.last()
        self._processes: dict[int, _Process] = {}
        self._missing: list[int] = []  # how many workers each process is to have
        self._stopping = Stop.NO
        self._is_store_gone = False
        self._own_log: LogDir | None = None  # in the background
        self._ready_fd = -1

    def run(self, ready_fd: int = -1) -> int:
        """Keep the workers running until all have left; return the exit code.

        ``ready_fd`` is closed, here and in each worker process, when all workers are registered.
        """
        self._stderr.reopen()
        if ready_fd >= 0:
            self._own_log = logs_of(self._store)
        self._ready_fd = ready_fd
        self._restarts = RestartPolicy(drain=self._drain, is_awaited=ready_fd >= 0)
        self._signals = StopSignals()
        self._signals.wake_on_child_exit()
        # Only the supervisor has the write end: worker processes read the end of file when it dies.
        self._alive_fd, self._alive_write_fd = os.pipe()
        sizes = process_sizes(self._count, _processors())
        self._store.pool.prepare()
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        stop_fd = self._store.stop_requests.fd()
        if stop_fd is not None:
            poll.register(stop_fd, select.POLLIN)
        self._housekeeping.recover()  # before a worker finds that nothing is left to do
        gc.freeze()
        for size in sizes:
            self._fork(size)
        if ready_fd >= 0:
            os.close(ready_fd)
            self._ready_fd = -1
        try:
            return self._supervise(poll)
        finally:
            self._log.report_dropped()
            # Last, and whatever ends the supervisor, however long it takes to log that.
            os.close(self._alive_write_fd)

    def _supervise(self, poll: select.poll) -> int:
        while True:
            # Before each wait: a stop may have been requested before the watch began.
            self._check_stop()
            if self._signals.is_paused:
                self._pause()
            self._reap()
            self._housekeeping.run_due()
            if self._own_log is not None:
                with suppress(OSError):  # nothing depends on it
                    self._own_log.worker_log.bound()
            if self._missing and self._restarts.pause_seconds(time.monotonic()) == 0:
                self._fork(self._missing.pop())
            if not self._processes and not self._missing:
                if (code := self._restarts.exit_code) is not None:
                    return code
                return StoreError.exit_code if self._is_store_gone else 0
            poll.poll(self._timeout_ms())
            self._signals.drain()

    def _timeout_ms(self) -> int:
        waits = [self._housekeeping.pause_seconds(), self._log.report_dropped()]
        if self._store.stop_requests.fd() is None:
            waits.append(self._store.queue.poll_seconds)
        if self._missing:
            waits.append(self._restarts.pause_seconds(time.monotonic()))
        if self._problems.has("stop"):
            waits.append(_RETRY_SECONDS)
        return poll_milliseconds(min(waits))

    # --- start ---

    def _fork(self, count: int) -> None:
        self._restarts.note_start(time.monotonic())
        others = {name for process in self._processes.values() for name in process.names}
        names = new_names(count, others)
        # RACE: a signal between the fork and the worker's own handlers would be lost, so it waits.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED_SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._log_shortage(error.strerror)
            self._restarts.lacks_resources = True
            self._missing.append(count)
            return
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._processes[pid] = _Process(names, time.monotonic())
        else:
            self._run_process(names)

    def _run_process(self, names: list[str]) -> None:
        code = EXIT_BUG
        try:
            os.setpgid(0, 0)
            os.close(self._alive_write_fd)
            self._stderr.reopen()
            WorkerProcess(
                self._store,
                names,
                self._stderr,
                drain=self._drain,
                quiet=self._quiet,
                supervisor_fd=self._alive_fd,
                ready_fd=self._ready_fd,
            ).run()
            code = 0
        except BaseException as error:
            log = EventLog(names[0], self._stderr, quiet=False)
            if isinstance(error, StoreError) or (isinstance(error, OSError) and is_scarcity(error)):
                code = EXIT_TEMPORARY
                self._log_shortage(error)
            elif isinstance(error, QueuectlError):
                log.error(f"cannot work: {error}")
                code = error.exit_code
            else:
                log.exception()
                raise
        finally:
            os._exit(code)

    def _log_shortage(self, reason: object) -> None:
        """Log, once for all starts that fail in a row, what the machine lacks."""
        if not self._restarts.lacks_resources:
            retrying = ", retrying" if self._restarts.is_patient else ""
            self._log.error(f"cannot start a worker{retrying}: {reason}")

    # --- stop ---

    def _check_stop(self) -> None:
        """Forward a request to stop to the workers, however it has come."""
        try:
            request = self._store.stop_requests.last()
        except StoreError as error:
            self._problems.report("stop", f"cannot look for a request to stop, retrying: {error}")
        else:
            self._problems.resolve("stop")
            if request is not None and request != self._old_stop_request:
                self._signals.request(Stop.NOW if request.now else Stop.GRACEFUL)
        if not self._is_store_gone and not self._store.pool.is_in_place():
            self._is_store_gone = True
            self._log.error(f"{self._store.location} was deleted or replaced")
            self._signals.request(Stop.GRACEFUL)
        level = self._signals.level
        if level > self._stopping:
            self._stopping = level
            self._missing.clear()
            is_now = level is Stop.NOW
            self._log.event(
                "stopping now, ending all commands" if is_now else "stopping when the jobs are done"
            )
            self._signal_all(signal.SIGUSR1 if is_now else signal.SIGUSR2)

    def _pause(self) -> None:
        """Keep the workers from claiming while Ctrl-Z has stopped this process."""
        self._log.event("paused: no job is started before fg or bg")
        self._signal_all(signal.SIGTSTP)
        self._signals.stop_process()
        self._signal_all(signal.SIGCONT)
        self._log.event("continued")

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
            # Another child came with the exec that started us, or to us as process 1.
            if process is None:
                continue
            if code != 0:
                self._note_failure(process, code)

    def _note_failure(self, process: _Process, code: int) -> None:
        had_given_up = self._restarts.exit_code is not None
        self._restarts.note_failure(code, time.monotonic() - process.started_at)
        if code != EXIT_TEMPORARY:  # else the process itself has logged why
            how = f"failed with exit code {code}"
            if code < 0:
                were = "was" if len(process.names) == 1 else "were"
                how = f"{were} killed by signal {-code}"
            self._log.error(f"{', '.join(process.names)} {how}")
        self._housekeeping.recover()
        if self._restarts.exit_code is None:
            if not self._stopping:
                self._missing.append(len(process.names))
        elif not had_given_up:
            self._log.error("giving up: the workers fail at their start")
            self._signals.request(Stop.GRACEFUL)
            self._missing.clear()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_sizes(count: int, processors: int) -> list[int]:
    """Return how many workers each process of a pool has.

    More processes than processors would only displace each other from the caches.
    """
    processes = max(min(count, processors), -(-count // _MAX_WORKERS))
    return [count * (at + 1) // processes - count * at // processes for at in range(processes)]
