"""Run the real program on a store of its own, and force the moments that a test is about."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from tests.process.guard import GUARD
from tests.program import QUEUECTL

# As sitecustomize, this keeps a worker from taking over signals for a while after its fork.
SLOW_FORK = """
import os, time
os.register_at_fork(after_in_child=lambda: time.sleep(0.3))
"""
# As sitecustomize, this refuses the claim of a job called later while there is a file "no claims",
# and lets who was refused wait for long.
REFUSED_LATER = """
import os
from queuectl.worker import worker
from queuectl.store import files
worker._RETRY_SECONDS = 3600.0
move_new = files.move_new

def refuse(first_fd, name, *others):
    if "-later" in name and os.path.exists("no claims"):
        raise OSError(30, os.strerror(30))
    move_new(first_fd, name, *others)

files.move_new = refuse
"""
# What must go well wherever it is run: see the fixture queue.
in_each_setting = pytest.mark.parametrize(
    "queue", ["as usual", "few descriptors", "latin-1", "SIGCHLD ignored"], indirect=True
)
_T = TypeVar("_T")
_POLL_SECONDS = 0.005


def until(condition: Callable[[], _T], what: str, seconds: float = 40.0) -> _T:
    """Return what a condition returns as soon as that is true; fail where it takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}")
        time.sleep(_POLL_SECONDS)
    return value


class Answer(NamedTuple):
    """Hold what a command has answered."""

    exit_code: int
    stdout: str
    stderr: str


class Gate:
    """Hold up a command, so that what a test is about happens while it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        os.mkfifo(path)
        self.wait = f"read line < {path}"  # what a command waits with

    def reached(self) -> None:
        """Return when the command waits at the gate."""
        if self._fd < 0:
            until(self._hold, f"a command reads {self._path.name}")

    def _hold(self) -> bool:
        with suppress(OSError):  # nobody reads it yet
            self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        return self._fd >= 0

    def open(self) -> None:
        """Let the command go on; the next one waits again."""
        self.reached()
        os.write(self._fd, b"\n")
        # Until it has closed the gate behind itself: what is written next is for the next one.
        poll = select.poll()
        poll.register(self._fd, 0)  # an error is told always: nobody reads any more
        assert poll.poll(40_000), f"no command went through {self._path.name}"
        self.forget()

    def forget(self) -> None:
        """Forget the command that has waited, and is gone; the next one waits again."""
        os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        """Let nobody through any more."""
        if self._fd >= 0:
            self.forget()


class Ear:
    """Hear what a pool tells through a pipe, which is no file that a full disk could hit."""

    def __init__(self) -> None:
        self._fd, self.write_fd = os.pipe()
        os.set_blocking(self._fd, False)
        self.heard = ""

    def hears(self, text: str, times: int = 1) -> bool:
        """Tell whether the pool has told something, so often at least."""
        with suppress(BlockingIOError):
            self.heard += os.read(self._fd, 65536).decode()
        return self.heard.count(text) >= times

    def close(self) -> None:
        """Hear no more."""
        os.close(self._fd)
        os.close(self.write_fd)


class Pool:
    """Be a running ``queuectl worker start`` in the foreground."""

    def __init__(self, queue: "Queue", process: "subprocess.Popen[bytes]", talk: Path) -> None:
        self._queue = queue
        self._talk = talk
        self.process = process
        self.pid = process.pid

    def pids(self) -> list[int]:
        """Return the process ids of its workers."""
        return children(self.pid)

    def ready(self, count: int = 1) -> "Pool":
        """Return when so many workers are registered."""

        def all_registered() -> bool:
            mine = set(self.pids())
            return sum(record["pid"] in mine for record in self._queue.records()) >= count

        until(all_registered, f"{count} workers are registered; they tell: {self.talk()}")
        return self

    def signal(self, number: int) -> "Pool":
        """Send a signal to the supervisor alone."""
        self.process.send_signal(number)
        return self

    def wait(self, seconds: float = 40.0) -> int:
        """Return its exit code when it has ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the pool runs still after {seconds:g} s; it tells: {self.talk()}"
            ) from None

    def stop(self) -> int:
        """Ask for a graceful stop and return the exit code."""
        return self.signal(signal.SIGTERM).wait()

    def talk(self) -> str:
        """Return what it told on stderr so far."""
        return self._talk.read_text()

    def kill(self) -> None:
        """End it and its workers, whatever they do."""
        workers = self.pids()
        for pid in [self.pid, *workers]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Queue:
    """Use one store from outside, as a user would."""

    def __init__(
        self, directory: Path, store: Path | None = None, *, prefix: Sequence[str] = ()
    ) -> None:
        """Begin with no store; the prefix is what each command is run by."""
        self._prefix = tuple(prefix)
        self.here = directory / "here"
        self.store = store or directory / "store"
        self.here.mkdir()
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith("QUEUECTL_")
        }
        self.env |= {"QUEUECTL_STORE": str(self.store), "HOME": str(self.here)}
        if paths := self.env.get("PYTHONPATH"):  # the program runs in another directory
            self.env["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
        self._late_imports = self.here / "late-imports"
        self._guard = GUARD.format(path=str(self._late_imports))
        self.env |= self.replacing("sitecustomize", "", directory="guard")
        self.pools: list[Pool] = []
        self._gates: list[Gate] = []

    @property
    def words(self) -> tuple[str, ...]:
        """Return what runs the program."""
        return *self._prefix, *QUEUECTL

    def __call__(self, *words: str, stdin: str = "", prefix: Sequence[str] = ()) -> Answer:
        """Run one command and return its exit code, stdout and stderr."""
        done = subprocess.run(
            [*prefix, *self.words, *words],
            input=stdin,
            env=self.env,
            cwd=self.here,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, stdin: str = "") -> str:
        """Run one command, which must succeed, and return what it printed."""
        answer = self(*words, stdin=stdin)
        assert answer.exit_code == 0, answer
        return answer.stdout

    def enqueue(self, command: str, job_id: str, *options: str) -> None:
        """Add one job."""
        assert self.ok("enqueue", command, "--id", job_id, *options) == f"{job_id}\n"

    def batch(self, jobs: list[dict[str, Any]], *options: str) -> None:
        """Add many jobs at once."""
        self.ok("enqueue", "--batch", "-", *options, stdin="\n".join(map(json.dumps, jobs)))

    def configure(self, **settings: object) -> None:
        """Set settings; underscores are taken as dashes."""
        self.store.mkdir(mode=0o700, exist_ok=True)
        path = self.store / "config.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(
            json.dumps(known | {key.replace("_", "-"): str(val) for key, val in settings.items()})
        )
        path.chmod(0o600)

    def gate(self, path: Path | None = None) -> Gate:
        """Make a gate for one command."""
        gate = Gate(path or self.here / f"gate-{len(self._gates)}")
        self._gates.append(gate)
        return gate

    def replacing(self, module: str, text: str, *, directory: str = "") -> dict[str, str]:
        """Return an environment in which a module is what a text says, before all others."""
        home = self.here.parent / (directory or f"replacing-{module}")
        home.mkdir()
        if module == "sitecustomize":
            text = self._guard + text
        (home / f"{module}.py").write_text(text)
        path = os.pathsep.join(filter(None, [str(home), self.env.get("PYTHONPATH")]))
        return {"PYTHONPATH": path}

    def pool(
        self,
        *options: str,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> Pool:
        """Start workers in the foreground, with stderr in a file."""
        talk = self.here / f"talk-{len(self.pools)}"
        talk.touch()
        with talk.open("ab") as stderr:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": stderr}
            streams["stderr"] = stderr
            process: subprocess.Popen[bytes] = subprocess.Popen(
                [*prefix, *self.words, "worker", "start", *options],
                env=self.env | dict(env or {}),
                cwd=self.here,
                **(streams | popen),
            )
        pool = Pool(self, process, talk)
        self.pools.append(pool)
        return pool

    def drain(self, *options: str, env: Mapping[str, str] | None = None) -> str:
        """Run workers until nothing is due, which must succeed; return what they told."""
        pool = self.pool("--drain", *options, env=env)
        assert pool.wait(50) == 0, pool.talk()
        return pool.talk()

    # --- what lies in the store ---

    def ids(self, state: str) -> list[str]:
        """Return the names in a state without their ending, sorted as ls does."""
        return sorted(path.stem for path in (self.store / state).glob("*.json"))

    def pending(self) -> list[str]:
        """Return the ids in pending/ in the order of ls."""
        return [name.split("-", 2)[2] for name in self.ids("pending")]

    def document(self, state: str, name: str) -> dict[str, Any]:
        """Return the document of a job."""
        document: dict[str, Any] = json.loads((self.store / state / f"{name}.json").read_text())
        return document

    def history(self, state: str, job_id: str, key: str = "outcome") -> list[Any]:
        """Return one thing of each attempt of a job in its history."""
        return [attempt[key] for attempt in self.document(state, job_id)["history"]]

    def until_in(self, state: str, job_id: str, seconds: float = 40.0) -> None:
        """Return when a job is in a state."""
        path = self.store / state / f"{job_id}.json"
        until(path.exists, f"{job_id} is {state}", seconds)

    def log(self, job_id: str, attempt: int = 1) -> str:
        """Return the output of an attempt."""
        return (self.store / "logs" / f"{job_id}.{attempt}.log").read_text()

    def records(self) -> list[dict[str, Any]]:
        """Return the records of workers, those of dead ones included."""
        found = []
        for path in (self.store / "workers").glob("*.json"):
            with suppress(FileNotFoundError):  # it has left
                for _ in range(20):
                    with suppress(ValueError):  # it is just being written
                        found.append(json.loads(path.read_text()))
                        break
                    time.sleep(0.001)
        return found

    # --- what runs ---

    def commands(self) -> list[int]:
        """Return the process ids of everything that jobs of this store have started."""
        return [pid for pid, env in self._processes() if b"QUEUECTL_JOB_ID" in env]

    def _processes(self) -> list[tuple[int, dict[bytes, bytes]]]:
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError):
                data = Path(f"/proc/{pid}/environ").read_bytes()
                env = dict(each.split(b"=", 1) for each in data.split(b"\0") if b"=" in each)
                if env.get(b"QUEUECTL_STORE") == os.fsencode(self.store):
                    found.append((pid, env))
        return found

    def close(self) -> None:
        """End everything that runs on this store."""
        for pool in self.pools:
            pool.kill()

        def all_gone() -> bool:
            processes = self._processes()
            for pid, _ in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not processes

        until(all_gone, "nothing runs on the store of the test")
        for gate in self._gates:
            gate.close()
        if self._late_imports.exists():
            raise AssertionError(f"a pool imported late: {self._late_imports.read_text()}")


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def proc_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (the third), empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def lives(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    fields = proc_stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def ticks(pid: int) -> int:
    """Return the processor time that a process has used. Units: hundredths of a second."""
    return sum(map(int, proc_stat(pid)[11:13]))


def uses_little(pool: Pool, seconds: float = 1.5) -> None:
    """Check that a pool waits, and does not spin."""
    pids = [pool.pid, *pool.pids()]
    used = sum(map(ticks, pids))
    time.sleep(seconds)
    assert pids == [pool.pid, *pool.pids()]
    assert sum(map(ticks, pids)) - used < 10 * seconds  # a tenth of one core
