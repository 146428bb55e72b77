"""List the commands that change a store, each on jobs that are laid out for it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.scenarios import Found, Snapshot, snapshot
from tests.directory import damages
from tests.jobs import claimed, ended, make_job, settle

from queuectl.clock import utc_now
from queuectl.job import Job, Outcome, State
from queuectl.store import open_store
from queuectl.store.logs import logs_of
from queuectl.store.protocol import Store

PARTLY = (0, 65, 66)  # a part of it was done, and cannot be done a second time


def job(job_id: str, **changes: Any) -> Job:
    """Return a job that is due and succeeds."""
    return make_job(
        job_id, **({"command": f": {job_id}", "cwd": "/", "run_at": utc_now()} | changes)
    )


def end(store: Store, outcome: Outcome, *jobs: Job) -> None:
    """Add jobs and let each end at its only attempt."""
    logs = logs_of(store)
    for each in jobs:
        store.add([each._replace(max_retries=1)], chosen=[each.id])
        claim = claimed(store, utc_now())
        os.close(os.open(logs.path(each.id, 1), os.O_WRONLY | os.O_CREAT, 0o600))
        settle(store, [ended(claim, outcome)])


def nothing(store: Store) -> None:
    """Leave the store empty."""


def waiting(store: Store) -> None:
    """Let jobs wait, one of them for another."""
    store.add([job("a"), job("b"), job("c", after=("a",))])


def dead(store: Store) -> None:
    """Fill the dead letter queue; one job has waited for another that is still to run."""
    end(store, Outcome.SUCCEEDED, job("parent"))
    end(store, Outcome.FAILED, job("a"), job("b"), job("c", after=("parent",)))
    store.retry("parent", [State.COMPLETED], utc_now())


def finished(store: Store) -> None:
    """Let jobs end, in each way, with a log each."""
    end(store, Outcome.SUCCEEDED, job("a"), job("b"))
    end(store, Outcome.CANCELLED, job("c"))
    end(store, Outcome.FAILED, job("d"))


def lost(store: Store) -> None:
    """Let a worker die with its job."""
    store.add([job("a")])
    os.close(claimed(store, utc_now()).pass_fds[0][0])


def configured(store: Store) -> None:
    """Set something."""
    store.config.change(lambda _: {"priority": "4", "timeout": "1h"})


def damaged(store: Store) -> None:
    """Do damage of many kinds."""
    path = Path(store.location)
    end(store, Outcome.SUCCEEDED, job("keep"))
    store.add([job("waits")])
    for damage in (
        damages.no_attempt,
        damages.gone_parent,
        damages.bad_config,
        damages.bad_stop,
        damages.abandoned_file,
        damages.stale_record,
        damages.stale_fifo,
    ):
        damage(store, path)
    (path / "logs").chmod(0o755)
    for name, data in (
        ("completed/broken.json", b"{broken"),
        ("cancelled/moved.json", damages.document("moved", command=": moved")),
        ("processing/lost.1.json", damages.document("lost", command=": lost", cwd="/")),
        ("processing/ahead.1.json", damages.document("ahead", State.DEAD, runs=1)),
        ("processing/ghost.1.json", damages.document("ghost")),
        ("completed/ghost.json", damages.document("ghost", State.COMPLETED, runs=1)),
        ("logs/nobody.1.log", b"broken pipe\n"),
    ):
        damages.write(path / name, data)


@dataclass(frozen=True, kw_only=True)
class Command:
    """Be a command on a store that is laid out for it, and what it may leave when it is cut off.

    ``between`` is where jobs may be besides where they were and where they come to. ``again`` are
    the exit codes of the same command, given once more after it has failed. With ``no_store`` there
    is no store before.
    """

    name: str
    words: tuple[str, ...]
    stdin: str = ""
    prepare: Callable[[Store], None] = nothing
    between: dict[str, set[Found]] = field(default_factory=dict)
    again: tuple[int, ...] = (0,)
    no_store: bool = False

    def lay_out(self, path: Path) -> None:
        """Make the store that it works on."""
        if self.no_store:
            return
        store = open_store(str(path), create=True)
        self.prepare(store)
        store.close()


def census(store: Path) -> Snapshot:
    """Return where each job is, and what the settings are; fail where one is torn or twice."""
    found = snapshot(store)
    config = store / "config.json"
    if config.exists():
        json.loads(config.read_text())
        found["config.json"] = Found(config.read_text())
    return found


_BATCH = "".join(
    json.dumps({"command": f": {number}"} | ({"id": f"n{number}"} if number % 2 else {})) + "\n"
    for number in range(18)
)
_FAMILY = "\n".join(
    json.dumps(each)
    for each in (
        {"id": "p", "command": ": p"},
        {"id": "c", "command": ": c", "after": ["p"]},
        {"id": "d", "command": ": d", "after": ["p", "c"]},
    )
)
_DIED = ("failed",)
_GONE_BACK = {Found("dead", _DIED, 0)}

COMMANDS = [
    Command(name="enqueue into no store", words=("enqueue", ": new"), no_store=True),
    Command(name="enqueue", words=("enqueue", ": new"), prepare=waiting),
    Command(
        name="enqueue with an id",
        words=("enqueue", ": new", "--id", "new"),
        prepare=waiting,
    ),
    Command(
        name="enqueue after others",
        words=("enqueue", ": new", "--id", "new", "--after", "a", "--after", "b"),
        prepare=waiting,
    ),
    Command(name="enqueue a few", words=("enqueue", "--batch", "-"), stdin=": x\n: y\n: z\n"),
    Command(name="enqueue many", words=("enqueue", "--batch", "-"), stdin=_BATCH),
    Command(name="enqueue a chain", words=("enqueue", "--batch", "-"), stdin=_FAMILY),
    Command(
        name="cancel those that wait", words=("cancel", "c", "b"), prepare=waiting, again=PARTLY
    ),
    Command(
        name="cancel one whose worker is gone",
        words=("cancel", "a"),
        prepare=lost,
        between={": a": {Found("processing", ("lost",))}},
    ),
    Command(
        name="dlq retry",
        words=("dlq", "retry", "a", "b"),
        prepare=dead,
        between=dict.fromkeys((": a", ": b"), _GONE_BACK),
        again=PARTLY,
    ),
    Command(
        name="dlq retry of one that waits",
        words=("dlq", "retry", "c"),
        prepare=dead,
        between={": c": _GONE_BACK},
        again=PARTLY,
    ),
    Command(
        name="retry",
        words=("retry", "a", "c"),
        prepare=finished,
        again=PARTLY,
    ),
    Command(name="purge", words=("purge",), prepare=finished),
    Command(name="dlq purge", words=("dlq", "purge"), prepare=finished),
    Command(name="config set", words=("config", "set", "priority", "2"), prepare=configured),
    Command(name="config unset", words=("config", "unset", "timeout"), prepare=configured),
    Command(name="worker stop", words=("worker", "stop"), prepare=waiting),
]
REPAIR = Command(name="doctor --repair", words=("doctor", "--repair"), prepare=damaged)
CANCEL = Command(name="cancel one that runs", words=("cancel", "a"))
