"""The peers: how each is installed, filled, drained and asked, as its documentation says."""

import json
import os
import shutil
import socket
import sqlite3
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import queuectl
from benchmarks.measure import QUEUECTL
from benchmarks.peers.base import Installation, Missing, Queue, ShellQueue, check, until
from queuectl.store import open_store

_DRIVERS = Path(__file__).with_name("drivers")


class Ours(Queue):
    """Be queuectl itself."""

    name = "queuectl"
    about = "this program"
    recovers = "at once: the attempt counts as lost, and is made again after the backoff of 2 s"

    @classmethod
    def version(cls, _: Installation) -> str:
        """Return the version."""
        return queuectl.__version__

    @property
    def environment(self) -> dict[str, str]:
        """Let it be found where the benchmark found it."""
        path = f"{_DRIVERS.parents[2]}:{os.environ.get('PYTHONPATH', '')}"
        return {**super().environment, "PYTHONPATH": path}

    @property
    def _base(self) -> tuple[str, ...]:
        return (*QUEUECTL, "--store", str(self.folder / "q"))

    def open(self) -> None:
        """Make the store, so that no measurement has to."""
        open_store(str(self.folder / "q"), create=True).close()

    def enqueue(self, command: str) -> Sequence[str]:
        """Return the words that enqueue one command."""
        return (*self._base, "enqueue", command)

    def add_many(self, commands: Sequence[str]) -> None:
        """Enqueue a batch."""
        lines = self.folder / "lines"
        lines.write_text("".join(f"{each}\n" for each in commands))
        self.run((*self._base, "enqueue", "--batch", str(lines)))

    def work(self, workers: int) -> None:
        """Start a pool."""
        self.start(*self._base, "worker", "start", "--quiet", "--count", str(workers))

    def drain(self, workers: int) -> None:
        """Let a pool end when nothing is due."""
        self.run((*self._base, "worker", "start", "--quiet", "--drain", "--count", str(workers)))

    def left(self) -> int:
        """Count what is neither completed nor cancelled."""
        names = ("pending", "processing", "dead")
        return sum(len(os.listdir(self.folder / "q" / each)) for each in names)


class OurLibrary(Ours):
    """Be queuectl for a program that is running, to be compared with other libraries."""

    def latencies(self, fifo: Path, gaps: Sequence[float]) -> list[float]:
        """Enqueue through the library: no end of a process hides a part of the wait."""
        script = (
            "import os, sys, time\n"
            "from benchmarks.run import job\n"
            "from queuectl.store import open_store\n"
            "folder, fifo, *gaps = sys.argv[1:]\n"
            "store = open_store(folder)\n"
            "reader = os.open(fifo, os.O_RDWR)\n"
            "for i, gap in enumerate(gaps):\n"
            "    time.sleep(float(gap))\n"
            "    store.add([job(f'echo > {fifo}', i)])\n"
            "    start = time.perf_counter()\n"
            "    os.read(reader, 16)\n"
            "    print(time.perf_counter() - start)\n"
        )
        words = (sys.executable, "-c", script, str(self.folder / "q"), str(fifo))
        output = self.run((*words, *map(str, gaps)))
        return [float(each) for each in output.split()]


class Xargs(Queue):
    """Be the yardstick, which keeps no queue: a list of commands, run as fast as it can."""

    name = "xargs -P"
    about = "the yardstick; keeps no queue"
    keeps = False

    @classmethod
    def version(cls, installation: Installation) -> str:
        """Return the version."""
        words = check((installation.program("xargs"), "--version")).split()
        return words[3].decode()

    def enqueue(self, command: str) -> Sequence[str]:
        """Have nothing to enqueue with."""
        raise NotImplementedError

    def add_many(self, commands: Sequence[str]) -> None:
        """Remember how many there are."""
        self._count = len(commands)

    def work(self, workers: int) -> None:
        """Have no workers that could be left running."""
        raise NotImplementedError

    def drain(self, workers: int) -> None:
        """Run as many commands."""
        numbers = "".join(f"{i}\n" for i in range(self._count)).encode()
        self.run(("xargs", f"-P{workers}", "-n1", "sh", "-c", "true"), numbers)

    def left(self) -> int:
        """Know nothing of what is left."""
        return 0


class Floor(Ours):
    """Be the floor: the system calls that queuectl's rules ask for, and nothing around them."""

    name = "the floor"
    about = "the system calls that the rules of queuectl take, see benchmarks/floor.py"
    keeps = False

    def hold(self, workers: int) -> None:
        """Start the process, which waits: what it imports is none of its work."""
        gate = self.folder / "gate"
        os.mkfifo(gate)
        script = (
            "import pathlib, sys\n"
            "from benchmarks.floor import floor, names_of\n"
            "store_dir, gate, workers = sys.argv[1:]\n"
            "open(gate).read()\n"
            "store_dir = pathlib.Path(store_dir)\n"
            "floor(store_dir, names_of(store_dir), int(workers))\n"
        )
        words = (sys.executable, "-c", script, str(self.folder / "q"), str(gate), str(workers))
        self._process = self.start(*words)

    def drain(self, workers: int) -> None:
        """Let it go."""
        del workers
        release(self.folder / "gate", 1)
        if self._process.wait():
            raise RuntimeError((self.folder / "output").read_text())


class TaskSpooler(ShellQueue):
    """Be task-spooler: a server that its first client starts, and a client waiting for each job.

    It holds about 1,000 jobs, since its server selects among so many descriptors.
    """

    name = "task-spooler"
    about = "Debian's tsp, with as many slots as workers"
    most_jobs = 900
    loop = "{words} >>output"
    recovers = "nothing: the queue is in the server's memory"

    @classmethod
    def install(cls, installation: Installation) -> None:
        """Unpack Debian's package."""
        installation.debian("task-spooler")

    @classmethod
    def version(cls, installation: Installation) -> str:
        """Return the version."""
        return check((installation.program("tsp"), "-V")).decode().split("v", 1)[1].split()[0]

    @property
    def _tsp(self) -> str:
        return self.installed.program("tsp")

    @property
    def environment(self) -> dict[str, str]:
        """Give it a server of its own, and a place for the output of its jobs."""
        socket_path = str(self.folder / "socket")
        return {**super().environment, "TS_SOCKET": socket_path, "TMPDIR": str(self.folder)}

    def open(self) -> None:
        """Start the server, by asking for something."""
        self.run((self._tsp, "-l"))

    def enqueue(self, command: str) -> Sequence[str]:
        """Return the words that enqueue one command."""
        return (self._tsp, "sh", "-c", command)

    def work(self, workers: int) -> None:
        """Let as many jobs run at once."""
        self.run((self._tsp, "-S", str(workers)))

    def hold(self, workers: int) -> None:
        """Fill each slot with a job that waits."""
        self.work(workers)
        os.mkfifo(self.folder / "gate")
        for _ in range(workers):
            self.run((self._tsp, "sh", "-c", f"read x <{self.folder}/gate"))

    def drain(self, workers: int) -> None:
        """Let the waiting jobs go, and wait for the last."""
        release(self.folder / "gate", workers)
        self.run((self._tsp, "-w"))
        until(lambda: self.left() == 0, seconds=60)

    def left(self) -> int:
        """Count the jobs that it lists as queued or running."""
        lines = self.run((self._tsp, "-l")).decode().splitlines()
        return sum(line.split()[1] in ("queued", "running") for line in lines[1:])


class Nq(ShellQueue):
    """Be nq: a process for each job that waits for the locks of those before it."""

    name = "nq"
    about = "Debian's nq; a queue runs one at a time, so as many queues as workers"
    most_jobs = 900  # each job looks at all that came before it
    loop = "{words}"
    recovers = "nothing: the waiting processes are the queue (their files can be run by hand)"

    @classmethod
    def install(cls, installation: Installation) -> None:
        """Unpack Debian's package."""
        installation.debian("nq")

    @classmethod
    def version(cls, installation: Installation) -> str:
        """Return the version of the package, as the program has no option for it."""
        installation.program("nq")
        return debian_version(installation, "nq")

    def enqueue(self, command: str) -> Sequence[str]:
        """Return the words that enqueue one command."""
        return (self.installed.program("nq"), "-q", "sh", "-c", command)

    @property
    def environment(self) -> dict[str, str]:
        """Name the queue's directory."""
        return {**super().environment, "NQDIR": str(self.folder / "0")}

    def open(self) -> None:
        """Know of one queue."""
        self._count = 1

    def work(self, workers: int) -> None:
        """Have nothing to start: jobs run by themselves."""

    def hold(self, workers: int) -> None:
        """Begin each queue with a job that waits."""
        self._count = workers
        os.mkfifo(self.folder / "gate")
        gate = self.enqueue(f"read x <{self.folder}/gate")
        for i in range(workers):
            self.run(("env", f"NQDIR={self.folder}/{i}", *gate))

    def add_many(self, commands: Sequence[str]) -> None:
        """Enqueue commands by a loop of the shell, in turn to each queue."""
        (self.folder / "lines").write_text("".join(f"{each}\n" for each in commands))
        words = " ".join(self.enqueue('"$line"'))
        step = f"i=$(((i + 1) % {self._count})); NQDIR={self.folder}/$i {words}"
        self.run(("sh", "-c", f"i=-1; while read -r line; do {step}; done <lines"))

    def drain(self, workers: int) -> None:
        """Let the waiting jobs go, and wait for each queue."""
        release(self.folder / "gate", workers)
        for i in range(workers):
            self.run(("env", f"NQDIR={self.folder}/{i}", self.installed.program("nq"), "-w"))

    def left(self) -> int:
        """Count the files that are executable, as those of jobs that have not ended are."""
        files = self.folder.glob("[0-9]/,*")
        return sum(bool(path.stat().st_mode & stat.S_IXUSR) for path in files)


class At(Queue):
    """Be at: atd starts everything that is due at once, without a bound."""

    name = "at"
    about = "Debian's at and atd, in a mount namespace; no bound on what runs at once"
    slow = True
    recovers = "nothing: the files of what was cut off stay in the spool"

    @classmethod
    def install(cls, _: Installation) -> None:
        """Install Debian's package in the system: its paths are fixed when it is built."""
        check(("apt-get", "install", "--yes", "--no-install-recommends", "at"))

    @classmethod
    def version(cls, installation: Installation) -> str:
        """Return the version."""
        if os.geteuid():
            raise Missing("its spool has a fixed place: only root can give it another one here")
        installation.program("at")
        installation.program("atd")
        return debian_version(installation, "at")

    def open(self) -> None:
        """Make a place in which at sees a spool of its own."""
        if hasattr(self, "_inside"):
            return
        spool = self.folder / "spool"
        for name in ("atjobs", "atspool"):
            path = spool / name
            path.mkdir(parents=True, exist_ok=True)
            shutil.chown(path, "daemon", "daemon")
            path.chmod(0o1770)
        counter = spool / "atjobs/.SEQ"  # the package makes it when it is installed
        counter.touch(mode=0o600)
        shutil.chown(counter, "daemon", "daemon")
        script = (
            f"mount --bind {spool} /var/spool/cron && mount -t tmpfs none /run && "
            f"touch {self.folder}/ready && exec sleep infinity"
        )
        holder = self.start("unshare", "--mount", "sh", "-c", script)
        until((self.folder / "ready").exists, seconds=10)
        self._inside = ("nsenter", "--target", str(holder.pid), "--mount")

    def enqueue(self, command: str) -> Sequence[str]:
        """Return the words that enqueue what comes on their input."""
        del command
        return (*self._inside, "at", "-M", "now")

    def input(self, command: str) -> bytes:
        """Return the command, as at reads it."""
        return f"{command}\n".encode()

    def add_many(self, commands: Sequence[str]) -> None:
        """Enqueue commands by a loop of the shell."""
        (self.folder / "lines").write_text("".join(f"{each}\n" for each in commands))
        script = 'while read -r line; do echo "$line" | at -M now; done <lines 2>>output'
        self.run((*self._inside, "sh", "-c", f"cd {self.folder} && {script}"))

    def work(self, workers: int) -> None:
        """Start atd."""
        del workers
        self.start(*self._inside, "atd", "-f")

    def left(self) -> int:
        """Count the files of its spool."""
        return sum(path.is_file() for path in (self.folder / "spool/atjobs").glob("[=a-zA-Z]*"))

    def kill(self, *, commands: bool) -> None:
        """Keep the mount namespace, so that the spool can be seen again."""
        super().kill(commands=commands)
        if hasattr(self, "_inside") and commands:
            del self._inside
            (self.folder / "ready").unlink(missing_ok=True)


class Library(Queue):
    """Be a library of PyPI, which a driver of ours uses as its documentation says.

    The driver is the program PACKAGE_jobs.py; it adds the commands of its input, counts what is
    left, and enqueues one after the other from a program that is running.
    """

    package: ClassVar[str]

    @classmethod
    def install(cls, installation: Installation) -> None:
        """Install it from PyPI."""
        installation.venv(cls.package)

    @classmethod
    def version(cls, installation: Installation) -> str:
        """Return the version."""
        return pypi_version(installation, cls.package)

    @property
    def _driver(self) -> tuple[str, str]:
        return (self.installed.program("python"), str(_DRIVERS / f"{self.package}_jobs.py"))

    def enqueue(self, command: str) -> Sequence[str]:
        """Return the words that enqueue what comes on their input."""
        del command
        return (*self._driver, "add")

    def input(self, command: str) -> bytes:
        """Return the command, as the driver reads it."""
        return f"{command}\n".encode()

    def add_many(self, commands: Sequence[str]) -> None:
        """Enqueue from one process, by the call that is made for many where there is one."""
        self.run((*self._driver, "add"), "".join(f"{each}\n" for each in commands).encode())

    def left(self) -> int:
        """Count what it has, taken or failed included."""
        return int(self.run((*self._driver, "left")))

    def latencies(self, fifo: Path, gaps: Sequence[float]) -> list[float]:
        """Enqueue from a program that is running, as its users do."""
        output = self.run((*self._driver, "latency", str(fifo), *map(str, gaps)))
        return [float(each) for each in output.split()]


class Huey(Library):
    """Be huey, with threads as workers, which is its default."""

    package = "huey"
    form: ClassVar[str]
    recovers = "nothing: what a worker had taken is gone"

    @property
    def environment(self) -> dict[str, str]:
        """Say where the queue is, and of which form."""
        return {
            **super().environment,
            "PEER_FOLDER": str(self.folder),
            "PEER_FORM": self.form,
            "PYTHONPATH": str(_DRIVERS),
        }

    def open(self) -> None:
        """Make the storage, so that no measurement has to."""
        self.run((*self._driver, "add"))

    def work(self, workers: int) -> None:
        """Start the consumer."""
        consumer = self.installed.program("huey_consumer")
        self.start(consumer, "huey_jobs.huey", "--quiet", "--workers", str(workers))


class HueySqlite(Huey):
    """Be huey with SqliteHuey, as it is by default."""

    name = "huey, SQLite"
    about = "SqliteHuey of PyPI's huey"
    form = "sqlite"

    def left(self) -> int:
        """Count the tasks that it lists."""
        return count_rows(self.folder / "huey.db", "select count(*) from task")


class HueyFile(Huey):
    """Be huey with FileHuey, which its documentation keeps for development."""

    name = "huey, files"
    about = "FileHuey of PyPI's huey, which is not meant for production"
    form = "file"

    def left(self) -> int:
        """Count the files of its queue."""
        return sum(path.is_file() for path in (self.folder / "files/queue").rglob("*"))


class Dirq(Library):
    """Be dirq, a library: its consumers are those of its documentation, and run commands."""

    package = "dirq"
    form: ClassVar[str]
    has_worker = False
    recovers = "purge() releases what has been locked for 600 s, whether its worker lives or not"

    @property
    def environment(self) -> dict[str, str]:
        """Say where the queue is."""
        folder = str(self.folder)
        return {**super().environment, "PEER_FOLDER": folder, "PEER_FORM": self.form}

    def work(self, workers: int) -> None:
        """Start consumers."""
        for _ in range(workers):
            self.start(*self._driver, "work")

    def drain(self, workers: int) -> None:
        """Start consumers that end at the end of the queue."""
        for process in [self.start(*self._driver, "work", "--drain") for _ in range(workers)]:
            process.wait()


class DirqPlain(Dirq):
    """Be dirq as it is."""

    name = "dirq"
    about = "QueueSimple of PyPI's dirq, a library; the worker is the loop of its documentation"
    form = "plain"


class DirqSynced(Dirq):
    """Be dirq with a program that makes durable what it adds and removes."""

    name = "dirq, synced"
    about = "dirq, and each file that is added or removed is synced with its directory"
    form = "synced"


class Rq(Library):
    """Be rq, with a redis-server of its own that listens on the loopback interface only."""

    package = "rq"
    slow = True
    servers = ("redis-server", "redis-check-rdb")
    durable: ClassVar[bool]
    recovers = "the job ends in FailedJobRegistry, and is requeued by hand"

    @classmethod
    def install(cls, installation: Installation) -> None:
        """Install rq from PyPI, and unpack Debian's server."""
        super().install(installation)
        installation.debian("redis-server")

    @classmethod
    def version(cls, installation: Installation) -> str:
        """Return the versions of both."""
        server = check(
            (installation.program("redis-server"), "--version"),
            environment={**os.environ, **installation.environment},
        )
        redis = server.decode().split("v=")[1].split()[0]
        return f"{super().version(installation)}, redis {redis}"

    @property
    def environment(self) -> dict[str, str]:
        """Say where the server is."""
        return {
            **super().environment,
            "PEER_URL": f"redis://127.0.0.1:{self._port}/0",
            "PYTHONPATH": str(_DRIVERS),
        }

    _port = 0

    def open(self) -> None:
        """Start the server, again on the same port and from the same files."""
        if not self._port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._port = free.getsockname()[1]
        form = ("--appendonly", "yes", "--appendfsync", "always") if self.durable else ()
        self.start(
            *(self.installed.program("redis-server"), "--port", str(self._port)),
            *("--bind", "127.0.0.1", "--dir", str(self.folder), *form),
        )

        def answers() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False

        until(answers, seconds=20)

    def _pool(self, workers: int) -> tuple[str, ...]:
        url = self.environment["PEER_URL"]
        rq = self.installed.program("rq")
        if workers == 1:
            return (rq, "worker", "--url", url, "--quiet")
        return (rq, "worker-pool", "--url", url, "--quiet", "--num-workers", str(workers))

    def work(self, workers: int) -> None:
        """Start a worker or a pool."""
        self.start(*self._pool(workers))

    def drain(self, workers: int) -> None:
        """Let a pool end when the queue is empty."""
        self.run((*self._pool(workers), "--burst"))


class RqDefault(Rq):
    """Be rq with a redis-server as it is by default."""

    name = "rq"
    about = "PyPI's rq, Debian's redis-server with its defaults (a snapshot now and then)"
    durable = False


class RqDurable(Rq):
    """Be rq with a redis-server that syncs each change."""

    name = "rq, durable"
    about = "rq and redis-server with appendonly yes, appendfsync always"
    durable = True


class Namesake(Queue):
    """Be the package of the same name on PyPI, which is another program."""

    name = "PyPI queuectl"
    about = "the unrelated package queuectl 2.0.0 of PyPI (SQLite)"
    slow = True
    recovers = "a job that was taken more than 5 minutes ago is taken again"

    @classmethod
    def install(cls, installation: Installation) -> None:
        """Install it from PyPI."""
        installation.venv("queuectl==2.0.0")

    @classmethod
    def version(cls, installation: Installation) -> str:
        """Return the version."""
        return pypi_version(installation, "queuectl")

    @property
    def environment(self) -> dict[str, str]:
        """Give it a home: it keeps its queue there."""
        return {**super().environment, "HOME": str(self.folder)}

    @property
    def _program(self) -> str:
        return str(self.installed.bin / "queuectl")

    def open(self) -> None:
        """Make the database, so that no measurement has to."""
        self.run((self._program, "status"))

    def enqueue(self, command: str) -> Sequence[str]:
        """Return the words that enqueue one command."""
        return (self._program, "enqueue", "--command", command)

    def add_many(self, commands: Sequence[str]) -> None:
        """Enqueue a file of jobs."""
        path = self.folder / "jobs.json"
        path.write_text(json.dumps([{"command": each} for each in commands]))
        self.run((self._program, "batch", str(path)))

    def work(self, workers: int) -> None:
        """Start workers."""
        self.start(self._program, "worker", "start", "--count", str(workers))

    def left(self) -> int:
        """Count what is neither completed nor cancelled."""
        return count_rows(
            self.folder / ".queuectl/queuectl.db",
            "select count(*) from jobs where state not in ('completed', 'cancelled')",
        )


def release(gate: Path, readers: int) -> None:
    """Let as many jobs go that wait for a line of a fifo."""
    writer = os.open(gate, os.O_WRONLY)
    os.write(writer, b"\n" * readers)
    os.close(writer)


def count_rows(database: Path, query: str) -> int:
    """Return what a query counts, without disturbing who works on the database."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def pypi_version(installation: Installation, package: str) -> str:
    """Return the version of a package in a virtual environment.

    Raises: Missing.
    """
    if not (installation.bin / "python").exists():
        raise Missing("not installed: --install makes it")
    script = f"import importlib.metadata as m; print(m.version({package!r}))"
    return check((str(installation.bin / "python"), "-c", script)).decode().strip()


def debian_version(installation: Installation, package: str) -> str:
    """Return the version of a package of Debian, unpacked or installed."""
    for archive in (installation.folder / "archives").glob(f"{package}_*.deb"):
        return check(("dpkg", "--field", str(archive), "Version")).decode().strip()
    return check(("dpkg-query", "--show", "--showformat=${Version}", package)).decode().strip()


PEERS: tuple[type[Queue], ...] = (
    TaskSpooler,
    Nq,
    At,
    HueySqlite,
    HueyFile,
    DirqPlain,
    DirqSynced,
    RqDefault,
    RqDurable,
    Namesake,
    Xargs,
    Floor,
)

# What is not measured, and why.
LEFT_OUT = {
    "batch": "atd starts one batch job a minute (its -b), and none above a load of 1.5: "
    "no rate to compare",
    "pueue": "not to be had here: it is published on crates.io only, Debian has no package, and "
    "PyPI has none; npm's pueue 0.0.0 is an empty name",
}
