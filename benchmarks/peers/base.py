"""What a peer must be able to do to be measured."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

# What a job's command consists of: all other programs of a queue are its workers and servers.
_COMMANDS = ("dash", "bash", "sh", "sleep", "coreutils")
_TOKEN = "BENCHMARK_TOKEN"  # not QUEUECTL_...: queuectl gives no such variable to its jobs


class Missing(Exception):
    """Say why a peer cannot be measured."""


class Installation:
    """Be what is installed for one peer: programs in a folder of its own, or the system's."""

    def __init__(self, folder: Path) -> None:
        """Take the peer's folder, which need not exist."""
        self.folder = folder
        self.bin = folder / "venv" / "bin"

    def venv(self, *requirements: str) -> None:
        """Make a virtual environment with packages from PyPI."""
        check([sys.executable, "-m", "venv", str(self.folder / "venv")])
        pip = (str(self.bin / "python"), "-m", "pip", "--disable-pip-version-check", "install")
        check([*pip, "--quiet", *requirements])

    def debian(self, *packages: str) -> None:
        """Unpack packages of Debian, and what they need and the system lacks, into the folder.

        Nothing of the system is changed, and no daemon is started.
        """
        archives = self.folder / "archives"
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        options = ("-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1")
        apt_get = ("apt-get", *options, "install", "--yes", "--no-install-recommends")
        check((*apt_get, "--download-only", "--reinstall", *packages))
        for archive in archives.glob("*.deb"):
            check(["dpkg", "--extract", str(archive), str(self.folder / "root")])

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which unpacked programs find their libraries."""
        libraries = [str(each) for each in (self.folder / "root/usr/lib").glob("*-linux-gnu")]
        return {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}

    def program(self, name: str) -> str:
        """Return the path of a program, the folder's before the system's.

        Raises: Missing.
        """
        for place in (self.bin, self.folder / "root/usr/bin", self.folder / "root/usr/sbin"):
            if (place / name).exists():
                return str(place / name)
        found = shutil.which(name)
        if found is None:
            raise Missing(f"no program {name}: --install makes it")
        return found


class Queue(ABC):
    """Be one empty queue of a peer, in a folder of its own."""

    name: ClassVar[str]
    about: ClassVar[str]  # what it is and how it is used here
    slow: ClassVar[bool] = False  # 500 jobs instead of 3,000, for both sides
    most_jobs: ClassVar[int] = sys.maxsize  # that it can hold
    keeps: ClassVar[bool] = True  # a queue at all, that something can be enqueued into
    has_worker: ClassVar[bool] = True  # a library has none: its worker is the benchmark's
    servers: ClassVar[tuple[str, ...]] = ()  # programs that hold the queue and are no workers
    recovers: ClassVar[str] = ""  # what its documentation says of a job that was cut off

    def __init__(self, installation: Installation, folder: Path) -> None:
        """Take what is installed, and the queue's folder, which is there and empty."""
        self.installed = installation
        self.folder = folder
        self.token = uuid.uuid4().hex
        self._started: list[subprocess.Popen[bytes]] = []

    # --- what each peer says ---

    @classmethod
    def install(cls, _: Installation) -> None:
        """Install it."""
        raise Missing(f"{cls.name} cannot be installed")

    @classmethod
    @abstractmethod
    def version(cls, installation: Installation) -> str:
        """Return its version.

        Raises: Missing.
        """

    @abstractmethod
    def enqueue(self, command: str) -> Sequence[str]:
        """Return the words that enqueue one command, cold."""

    @abstractmethod
    def add_many(self, commands: Sequence[str]) -> None:
        """Enqueue commands by the fastest way that its documentation gives."""

    @abstractmethod
    def work(self, workers: int) -> None:
        """Start workers, as the documentation says, and leave them running."""

    @abstractmethod
    def left(self) -> int:
        """Return how many jobs the peer itself shows as not done, whether failed or waiting."""

    def open(self) -> None:  # noqa: B027  (most have nothing to start)
        """Start what must run before something can be enqueued."""

    def hold(self, workers: int) -> None:
        """Make it hold back what will be enqueued, where it begins at once."""
        del workers

    def drain(self, workers: int) -> None:
        """Run all that was enqueued."""
        self.work(workers)
        until(lambda: self.left() == 0, seconds=600)

    def input(self, command: str) -> bytes:
        """Return what the words of `enqueue` read from their input."""
        del command
        return b""

    def latencies(self, fifo: Path, gaps: Sequence[float]) -> list[float]:
        """Return the seconds from the end of each enqueue to the first act of its command."""
        reader = os.open(fifo, os.O_RDWR)
        waits = []
        for gap in gaps:
            time.sleep(gap)
            self.add_one(f"echo > {fifo}")
            start = time.perf_counter()
            os.read(reader, 16)
            waits.append(time.perf_counter() - start)
        os.close(reader)
        return waits

    # --- what they share ---

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of all its processes; the token finds them again."""
        return {**os.environ, **self.installed.environment, _TOKEN: self.token, "PYTHONPATH": ""}

    def add_one(self, command: str) -> None:
        """Enqueue one command, cold."""
        self.run(self.enqueue(command), self.input(command))

    def run(self, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
        """Run one of its programs to its end, and return what it printed."""
        return check(arguments, stdin, self.environment, self.folder)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of its programs, in the background."""
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                arguments,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def processes(self, *, commands: bool) -> dict[int, str]:
        """Return the program of each of its processes, with or without those of its jobs."""
        # A server may have written its title over its environment.
        mine = {process.pid for process in self._started if process.poll() is None}
        found = {}
        token = f"{_TOKEN}={self.token}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                program = (path / "exe").resolve().name
                known = int(path.name) in mine
                if not known and token not in (path / "environ").read_bytes().split(b"\0"):
                    continue
            except OSError:  # it ended, or is a kernel's thread
                continue
            if commands or program not in _COMMANDS:
                found[int(path.name)] = program
        return found

    def kill(self, *, commands: bool) -> None:
        """Send SIGKILL to its workers; with their commands, to its servers as well."""
        while True:
            found = self.processes(commands=commands)
            chosen = [pid for pid, name in found.items() if commands or name not in self.servers]
            if not chosen:
                break
            for pid in chosen:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.005)

    def close(self) -> None:
        """End everything."""
        self.kill(commands=True)
        for process in self._started:
            process.wait()


class ShellQueue(Queue):
    """Be a queue that is filled by a loop of the shell, a program for each job."""

    loop: ClassVar[str]  # what the loop does with $line

    def add_many(self, commands: Sequence[str]) -> None:
        """Enqueue commands by a loop of the shell."""
        text = "".join(f"{each}\n" for each in commands)
        (self.folder / "lines").write_text(text)
        words = " ".join(self.enqueue('"$line"'))
        script = f"while read -r line; do {self.loop.format(words=words)}; done < lines"
        self.run(("sh", "-c", script))


def check(
    arguments: Sequence[str],
    stdin: bytes = b"",
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> bytes:
    """Run a program; where it fails, show what it said."""
    done = subprocess.run(
        arguments, input=stdin, env=environment, cwd=folder, capture_output=True, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{said}")
    return done.stdout


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.005)
