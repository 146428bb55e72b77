"""Run the real program under strace, note its calls that change files, and spoil one of them.

Source: strace(1), ``--inject``. A call is told by its name and by how many calls of that name its
thread has made before; the same command on the same files makes the same calls.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.process.support import Answer, children, lives, until

NEEDS_STRACE = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace, which injects faults, is not installed"
)
LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))

# What changes a file, or says who may; those that a kernel does not know (aarch64 has no rename)
# are left out by the question mark.
_CALLS = (
    "openat", "write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "syncfs",
    "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat",
    "mknod", "mknodat", "rmdir", "chmod", "fchmod", "fchmodat", "utimensat", "flock",
)  # fmt: skip
_TRACE = "trace=" + ",".join(f"?{each}" for each in _CALLS)
_LONG = "60s"  # a call that is held so long is one that somebody kills
_LINE = re.compile(r"(?:(\d+) +)?(\w+)\((.*)")
_ARGUMENT = re.compile(r'(?:AT_FDCWD|(\d+))<([^>]*)>(?:, "([^"]*)")?|"(/[^"]*)"')
_MOST = 11  # kinds of call of one command in the short form
STDOUT = "stdout"
_MADE = ", made"


class Fault(StrEnum):
    """What can happen at a call: the program is killed before or after it, or it is refused."""

    BEFORE = "killed before"
    AFTER = "killed after"
    EIO = "EIO"
    ENOSPC = "ENOSPC"
    EMFILE = "EMFILE"
    EINTR = "EINTR"
    EACCES = "EACCES"

    @property
    def kills(self) -> bool:
        """Tell whether the program dies of it."""
        return self in (Fault.BEFORE, Fault.AFTER)


class Call(NamedTuple):
    """Be the n-th call of its name in its thread; ``kind`` says what kind of files it is about."""

    name: str
    number: int
    kind: str

    @property
    def changes(self) -> bool:
        """Tell whether it changes more than what this process has open."""
        return self.name != "openat" or self.kind.endswith(_MADE)

    def __str__(self) -> str:
        return f"{self.name} #{self.number} ({self.kind})"


def _kind(call: str, arguments: str, store: Path) -> str:
    """Return which kinds of files a call names, each job's being a star; '' for none of ours."""
    kinds = []
    if "write" in call:
        arguments = arguments.partition(">")[0] + ">"  # not what it writes
    for number, directory, name, path in _ARGUMENT.findall(arguments):
        whole = path or (f"{directory}/{name}" if name not in ("", ".") else directory)
        whole = whole.removesuffix(" (deleted)")
        if number == "1" and "pipe:" in directory:
            return STDOUT
        if whole == str(store):
            kinds.append(".")
        elif whole.startswith(f"{store}/"):
            *directories, last = whole.removeprefix(f"{store}/").split("/")
            is_directory = os.path.isdir(whole) or not directories
            kinds.append("/".join((*directories, last if is_directory else "*")))
    kind = " -> ".join(kinds)
    return kind + _MADE if kind and "O_CREAT" in arguments else kind


class Trace:
    """Read what strace tells, as it tells it."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._read_fd, self.write_fd = os.pipe()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.calls: list[Call] = []
        self.hit = ""

    @property
    def options(self) -> tuple[str, ...]:
        """Return what makes strace tell it."""
        return ("-qq", "-y", "-s", "256", "-o", f"/dev/fd/{self.write_fd}", "-e", _TRACE)

    def lines(self) -> Iterator[str]:
        """Stream what strace writes until it has ended."""
        os.close(self.write_fd)
        with open(self._read_fd, encoding="utf-8", errors="surrogateescape") as stream:
            yield from stream

    def follow(self, kill: Callable[[], None]) -> None:
        """Take note of all calls until strace has ended; kill who is held after one of them."""
        for line in self.lines():
            if match := _LINE.match(line):
                thread, name, arguments = match.groups()
                self._counts[thread, name] += 1
                if kind := _kind(name, arguments.partition(") = ")[0], self._store):
                    self.calls.append(Call(name, self._counts[thread, name], kind))
                last = line
            if "(DELAYED)" in line:
                self.hit = line
                kill()
            elif "(INJECTED)" in line:
                self.hit = line
            elif "+++ killed by SIGKILL" in line and not self.hit:
                self.hit = last


def injection(call: Call, fault: Fault) -> tuple[str, str]:
    """Return the options of strace that spoil a call."""
    if fault is Fault.BEFORE:
        what = "signal=KILL"
    elif fault is Fault.AFTER:
        what = f"delay_exit={_LONG}"
    else:
        what = f"error={fault}"
    return "-e", f"inject={call.name}:{what}:when={call.number}"


def kill_held(pid: int, strace: "subprocess.Popen[Any]") -> None:
    """Kill a process that strace holds, and return when it is gone, and its locks are free."""
    os.kill(pid, signal.SIGKILL)
    strace.kill()  # it would keep what is left of the process until the delay is over
    until(lambda: not lives(pid), "the process that was killed is gone")


class Run(NamedTuple):
    """Hold how a command went under strace."""

    answer: Answer
    calls: list[Call]
    hit: str


def run_traced(
    words: Sequence[str],
    *,
    store: Path,
    env: Mapping[str, str],
    cwd: Path,
    stdin: str = "",
    inject: tuple[str, ...] = (),
) -> Run:
    """Run a command to its end, noting its calls, one of them spoilt where that is asked for."""
    trace = Trace(store)
    process = subprocess.Popen(
        ["strace", *trace.options, *inject, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env),
        cwd=cwd,
        text=True,
        pass_fds=(trace.write_fd,),
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it was killed before it has read it
        process.stdin.write(stdin)
        process.stdin.flush()
    process.stdin.close()
    process.stdin = None
    trace.follow(lambda: kill_held(children(process.pid)[0], process))
    stdout, stderr = process.communicate(timeout=50)
    return Run(Answer(process.returncode, stdout, stderr), trace.calls, trace.hit)


def some(calls: Sequence[Call], turn: int) -> list[tuple[Call, Fault]]:
    """Return which faults to try: one for some kinds of call, by turns; in the long form all.

    A file that is only opened is not changed: of those, one of a kind will do in the long form.
    """
    first: dict[tuple[str, str], Call] = {}
    for call in calls:
        first.setdefault((call.name, call.kind), call)
    if LARGE:
        chosen = [call for call in calls if call.changes or call in first.values()]
        faults = [(call, fault) for call in chosen for fault in Fault]
    else:
        # Those that kill come more often: what they leave shows the most.
        cycle = (*Fault, Fault.BEFORE, Fault.AFTER)
        chosen = [call for call in first.values() if call.changes]
        chosen = chosen[turn % (len(chosen) // _MOST + 1) :: len(chosen) // _MOST + 1]
        faults = [(call, cycle[(index + turn) % len(cycle)]) for index, call in enumerate(chosen)]
    # filelock takes a lock that is refused for one that is held, as some systems tell it, and a
    # file that cannot be opened is somebody else's: both are left alone, and no error is told.
    return [
        (call, fault)
        for call, fault in faults
        if fault is not Fault.EACCES or (call.changes and call.name != "flock")
    ]
