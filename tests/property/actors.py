"""Let processes act on a store when they are told to, and die when and where they are told to."""

import copyreg
import faulthandler
import os
import signal
import socket
import sys
import traceback
import warnings
from array import array
from collections.abc import Callable, Sequence
from datetime import datetime
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any, NamedTuple

import filelock  # noqa: F401  (imported before a fork, not in it)
from tests.crash.steps import CRASHED, changes, watched
from tests.jobs import NOON, SETTINGS, claim_next, settle

import queuectl.clock
from queuectl.errors import QueuectlError
from queuectl.job import Attempt, Job, Outcome, State, log_name
from queuectl.policy import after_attempt
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim, Settlement

_ASKED_SECONDS = 30.0
_ANSWER_SECONDS = 60.0


def _frozen(mapping: dict[str, Any]) -> MappingProxyType[str, Any]:
    return MappingProxyType(mapping)


# A job holds one where its document holds nothing.
copyreg.pickle(MappingProxyType, lambda proxy: (_frozen, (dict(proxy),)))


class Crash(NamedTuple):
    """Say at which step of what it is told a process is to die."""

    step: int
    torn: bool


class Order(NamedTuple):
    """Say what a process is to do, and what time it is."""

    what: str
    args: tuple[Any, ...]
    now: datetime
    crash: Crash | None


class Refused(NamedTuple):
    """Hold the error, by the name of its class, with which a store refused what it was asked."""

    error: str
    text: str


class Died(Exception):
    """Report that a process has died where it was told to."""


class Hands:
    """Do what a process is told, with a store that it has opened, and claims of its own."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.now = NOON
        self._claims: dict[str, Claim] = {}
        self._settlement: Settlement | None = None
        self._is_synced = False

    def utc_now(self) -> datetime:
        """Return what time it is."""
        return self.now

    def start(self) -> None:
        """Begin to work, as a worker does."""
        self.store.queue.register(self.name, self.now)
        self.store.queue.arrivals_fd()

    def add(self, jobs: Sequence[Job], chosen: Sequence[str], skip: bool) -> list[str]:
        """Add jobs."""
        return self.store.add(jobs, chosen=chosen, skip_existing=skip)

    def retry(self, job_id: str, states: Sequence[State]) -> Job:
        """Send a job back."""
        return self.store.retry(job_id, states, self.now)

    def cancel(self, job_ids: Sequence[str]) -> list[tuple[str, State | None]]:
        """Cancel jobs."""
        return list(self.store.cancel(job_ids))

    def purge(self, job_id: str, state: State) -> bool:
        """Delete a job as a purge does: none that is waited for."""
        with self.store.purging.named_parents().held() as named:
            return job_id not in named and self.store.purging.purge(job_id, state)

    def claim(self) -> tuple[Job, int] | datetime | None:
        """Claim; return the job and its attempt, or else when to ask again."""
        claim = claim_next(self.store, self.now)
        if claim is None:
            return self.store.queue.next_due()
        self._claims[claim.job.id] = claim
        return claim.job, claim.attempt

    def descriptors(self, job_id: str) -> list[tuple[int, int]]:
        """Return what the command of a claim inherits."""
        return list(self._claims[job_id].pass_fds)

    def give_back(self, job_id: str) -> None:
        """Give a claim back."""
        self.store.queue.give_back(self._claims.pop(job_id))

    def _ended(self, ended: Sequence[tuple[str, Outcome]]) -> list[tuple[Claim, Job]]:
        return [(self._claims[job_id], self._after(job_id, outcome)) for job_id, outcome in ended]

    def _after(self, job_id: str, outcome: Outcome) -> Job:
        claim = self._claims[job_id]
        attempt = Attempt(
            number=claim.attempt,
            worker=self.name,
            started_at=claim.started_at,
            finished_at=self.now,
            duration_seconds=0.5,
            exit_code=3 if outcome is Outcome.FAILED else None,
            signal=9 if outcome is Outcome.SIGNALLED else None,
            outcome=outcome,
            log=log_name(job_id, claim.attempt),
        )
        return after_attempt(claim.job, attempt, SETTINGS, self.now, 0.0)

    def settle(self, ended: Sequence[tuple[str, Outcome]]) -> None:
        """Settle claims, by how their runs ended."""
        settle(self.store, self._ended(ended))
        self.forget([job_id for job_id, _ in ended])

    def begin_settle(self, ended: Sequence[tuple[str, Outcome]]) -> None:
        """Begin to settle claims."""
        self._settlement = self.store.queue.begin_settle(self._ended(ended))

    def sync(self) -> None:
        """Make durable what is being settled."""
        assert self._settlement is not None
        self._settlement.sync()
        self._is_synced = True

    def finish(self, job_ids: Sequence[str]) -> None:
        """Finish what is being settled."""
        if not self._is_synced:
            self.sync()
        assert self._settlement is not None
        self._is_synced = False
        self._settlement.finish()
        self._settlement = None
        self.forget(job_ids)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Forget claims that are no more."""
        for job_id in job_ids:
            del self._claims[job_id]

    def asked_to_cancel(self, job_id: str) -> bool:
        """Wait until somebody asks to cancel something; return whether it is this job."""
        import select

        fd = self.store.queue.control_fd()
        poll = select.poll()
        if fd is not None:
            poll.register(fd, select.POLLIN)
        poll.poll(int(_ASKED_SECONDS * 1000))
        return self.store.queue.cancel_requested(self._claims[job_id])

    def recover(self) -> tuple[list[tuple[str, int, bool, State]], int, int]:
        """Recover what nobody holds; return what the report tells."""
        report = self.store.pool.recover(self._decide)
        told = [(each.job.id, each.attempt, each.lost, each.job.state) for each in report.recovered]
        return told, report.running, report.unowned

    def _decide(self, job: Job, attempt: Attempt) -> Job:
        return after_attempt(job, attempt, SETTINGS, self.now, 0.0)

    def release_blocked(self) -> bool:
        """Let those go on whose parents have ended."""
        return self.store.pool.release_blocked()

    def tidy(self) -> None:
        """Remove what the dead have left."""
        self.store.pool.tidy()

    def doctor(self, repair: bool) -> list[str]:
        """Examine the store; return what was found but for what is no damage."""
        from queuectl.store.doctor import examine

        found = examine(self.store.location, repair=repair)
        return [f"{each.where}: {each.what}; {each.action}" for each in found if not each.note]


class Actor:
    """Be one process, that a test tells what to do."""

    def __init__(self, name: str, open_store: Callable[[], Store]) -> None:
        """Start the process, which opens the store."""
        self.name = name
        self._near, far = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside xdist's threads
            self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._near.close()
                for other in list(_live):
                    other._close()
                _serve(far, Hands(open_store(), name))
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
                raise
            finally:
                os._exit(code)
        far.close()
        self._connection = Connection(os.dup(self._near.fileno()))
        _live.add(self)

    def tell(self, what: str, *args: Any, now: datetime, crash: Crash | None = None) -> Any:
        """Let it do something, and return what it returns. Raises: Died."""
        self.begin(what, *args, now=now, crash=crash)
        return self.answer()

    def begin(self, what: str, *args: Any, now: datetime, crash: Crash | None = None) -> None:
        """Let it begin to do something."""
        self._connection.send(Order(what, args, now, crash))

    def answer(self) -> Any:
        """Return what came of what it has begun. Raises: Died."""
        if not self._connection.poll(_ANSWER_SECONDS):
            os.kill(self.pid, signal.SIGABRT)  # it tells where it is
            raise AssertionError(f"{self.name} does not come to an end")
        try:
            kind, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._close()
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            assert code == CRASHED, f"{self.name} has ended with {code}"
            raise Died from None
        assert kind != "bug", value
        return value

    def descriptors(self, job_id: str, now: datetime) -> list[tuple[int, int]]:
        """Return copies of what the command of a claim inherits, with the numbers that it wants."""
        wanted: list[tuple[int, int]] = self.tell("descriptors", job_id, now=now)
        if not wanted:
            return []
        _, data, _, _ = self._near.recvmsg(1, socket.CMSG_LEN(4 * len(wanted)))
        fds = array("i")
        fds.frombytes(data[0][2])
        return [(fd, number) for fd, (_, number) in zip(fds, wanted, strict=True)]

    def kill(self) -> None:
        """End it as kill -9 does."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._close()

    def _close(self) -> None:
        _live.discard(self)
        self._near.close()
        self._connection.close()


# The processes that live, whose connections none of the others is to keep open.
_live: set[Actor] = set()


def _serve(far: socket.socket, hands: Hands) -> None:
    """Do what is told until nobody is there any more to tell it."""
    queuectl.clock.utc_now = hands.utc_now
    for name, module in list(sys.modules.items()):
        if name.startswith("queuectl.") and hasattr(module, "utc_now"):
            module.utc_now = hands.utc_now  # type: ignore[attr-defined]
    faulthandler.enable()
    connection = Connection(far.fileno())
    while True:
        try:
            order: Order = connection.recv()
        except EOFError:
            return
        hands.now = order.now
        connection.send(_done(order, hands))
        if order.what == "descriptors" and (fds := hands.descriptors(*order.args)):
            socket.send_fds(far, [b"."], [fd for fd, _ in fds])


def _done(order: Order, hands: Hands) -> tuple[str, Any]:
    def meet(number: int, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if order.crash is not None and number == order.crash.step:
            if order.crash.torn and name in ("write", "pwrite"):
                original(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            os._exit(CRASHED)

    try:
        if order.crash is None:
            return "done", getattr(hands, order.what)(*order.args)
        with watched(changes, meet):
            return "done", getattr(hands, order.what)(*order.args)
    except QueuectlError as error:
        return "done", Refused(type(error).__name__, str(error))
    except BaseException:  # noqa: BLE001  # whatever it is, the test tells it
        return "bug", traceback.format_exc()
