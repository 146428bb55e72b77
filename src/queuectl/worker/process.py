"""One worker process of a pool: sets up what its workers share, and runs them."""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from random import SystemRandom

from queuectl.config import Settings
from queuectl.errors import NameTaken
from queuectl.nonblocking import NonBlockingWriter
from queuectl.store.logs import logs_of
from queuectl.store.protocol import Store
from queuectl.worker.claiming import Claimer
from queuectl.worker.context import WorkerContext
from queuectl.worker.environment import inherited_environment
from queuectl.worker.events import EventLog, ReportedProblems
from queuectl.worker.idle import Idle
from queuectl.worker.loop import Batcher, Loop
from queuectl.worker.settler import Settler
from queuectl.worker.signals import Stop, StopSignals
from queuectl.worker.workdir import WorkDirs
from queuectl.worker.worker import Worker

_NAME_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"


class WorkerProcess:
    """One process of a pool, with one or more workers that run one job at a time each."""

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        stderr: NonBlockingWriter,
        *,
        drain: bool,
        quiet: bool,
        supervisor_fd: int,
        ready_fd: int,
    ) -> None:
        """Set up what the workers, one for each of ``names``, share.

        ``supervisor_fd`` becomes readable when the supervisor is gone. ``ready_fd``, or -1, gets a
        byte for each worker, and is closed, when all are registered.
        """
        self._store = store
        self._supervisor_fd = supervisor_fd
        self._ready_fd = ready_fd
        logs = [EventLog(name, stderr, quiet=quiet) for name in names]
        self._log = logs[0]
        store.pool.report_set_aside(self._log.error)
        self._signals = StopSignals()
        self._loop = Loop()
        self._loop.add_waker(self._signals.fd, self._signals.drain)
        self._loop.add_waker(supervisor_fd, self._on_orphaned)
        problems = ReportedProblems(self._log)
        self._settler = Settler(store.queue, self._loop, self._signals, self._log, problems)
        self._context = WorkerContext(
            store=store,
            queue=store.queue,
            loop=self._loop,
            signals=self._signals,
            problems=problems,
            settler=self._settler,
            workdirs=WorkDirs(self._signals.wake),
            logs=logs_of(store),
            env=inherited_environment(store.location),
            drain=drain,
            settings=Settings(),
        )
        idle = Idle(self._context, self._log)
        claimer = Claimer(self._context, idle)
        self._workers = [Worker(self._context, claimer, idle, log) for log in logs]
        self._unregister: Batcher[None] = Batcher(self._loop, self._unregister_all)

    def run(self) -> None:
        """Work until asked to stop, the supervisor is gone or, with drain, nothing is left."""
        null_fd = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null_fd, 0)  # commands inherit it
        os.close(null_fd)
        try:
            for worker in self._workers:
                self._register(worker.log)
            self._settler.reserve(len(self._workers))
            if self._ready_fd >= 0:
                with suppress(OSError):  # nobody waits any more
                    os.write(self._ready_fd, b"." * len(self._workers))
                os.close(self._ready_fd)
            self._loop.run([self._run(worker) for worker in self._workers])
        finally:
            self._log.report_dropped()
            # None of them has a record any more, unless something failed.
            self._store.queue.unregister(*(worker.name for worker in self._workers))
            self._store.close()

    async def _run(self, worker: Worker) -> None:
        await worker.run()
        await self._unregister.call(worker.name)

    def _register(self, log: EventLog) -> None:
        """Register a worker, under another name if its own is taken. Raises: StoreError."""
        while True:
            try:
                self._store.queue.register(log.name, self._store.now())
            except NameTaken:
                [name] = new_names(1, [log.name])
                taken, log.name = log.name, name
                log.error(f"renamed from {taken}: that name is taken")
            else:
                break
        name, fd = log.name, self._store.queue.control_fd(log.name)
        if fd is not None:
            self._loop.add_waker(fd, lambda: self._context.check_stop_request(name))

    def _unregister_all(self, names: Sequence[str]) -> list[None]:
        for name in names:
            fd = self._store.queue.control_fd(name)
            if fd is not None:
                self._loop.remove_waker(fd)
        self._store.queue.unregister(*names)
        return [None] * len(names)

    def _on_orphaned(self) -> None:
        self._loop.remove_waker(self._supervisor_fd)
        self._signals.request(Stop.GRACEFUL)


def new_names(count: int, others: Collection[str]) -> list[str]:
    """Make up names of workers, quick to type, that differ from each other and from ``others``."""
    names: list[str] = []
    while len(names) < count:
        name = "w-" + "".join(SystemRandom().choices(_NAME_ALPHABET, k=5))
        if name not in others and name not in names:
            names.append(name)
    return names
