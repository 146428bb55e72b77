"""Make hostile stores, and run every command on them as a whole program."""

import io
import json
import locale
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import strategies as st
from tests.jobs import NOON, make_job
from tests.program import QUEUECTL

from queuectl.cli.group import run as run_command
from queuectl.document import encode_job
from queuectl.job import Attempt, Outcome, State
from queuectl.store.layout import DIRECTORIES, FILES
from queuectl.store.names import pending_name

EXIT_CODES = {0, 1, 2, 65, 66, 69, 74, 75, 77, 78}
IDS = ("a", "b-1", "c.2")
_WORKER_SECONDS = 30.0

READING: tuple[tuple[str, ...], ...] = (
    ("list",), ("list", "--json"), ("list", "--sort", "created", "--json", "--limit", "9"),
    ("list", "--reverse", "--command-matches", "."), ("status",), ("status", "--json"),
    *(("show", each) for each in IDS), ("show", "a", "--json"), ("logs", "a"), ("logs", "b-1"),
    ("dlq", "list"), ("dlq", "list", "--json"), ("dlq", "show", "a"), ("worker", "list"),
    ("worker", "list", "--json"), ("config", "list"), ("config", "list", "--json"), ("metrics",),
    ("doctor",), ("doctor", "--json"), ("purge", "--dry-run"), ("wait", "a", "--timeout", "0.01s"),
)  # fmt: skip
WRITING: tuple[tuple[str, ...], ...] = (
    ("enqueue", "--id", "a", "true"), ("enqueue", "true"), ("enqueue", "--after", "b-1", "true"),
    ("retry", "a"), ("cancel", "b-1"), ("dlq", "retry", "--all"),
    ("config", "set", "max-retries", "2"), ("config", "unset", "timeout"),
)  # fmt: skip
ENDING: tuple[tuple[str, ...], ...] = (
    ("purge",), ("dlq", "purge"), ("worker", "stop", "--timeout", "0.1s"), ("doctor", "--repair"),
)  # fmt: skip


class Put(NamedTuple):
    """Be one thing that a hand has put into a store."""

    directory: str
    name: bytes
    kind: str
    content: bytes
    mtime: int


# --- what is put there ---

_numbers = (
    st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 10**400, 1e308, -0.0, True])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
_texts = st.text(max_size=8) | st.sampled_from(
    ["\x1b[31m", "a\nb", "\0", "../../x", "2026-01-01", "9999-12-31T23:59:59Z", "a", "x" * 300]
)
_values = st.recursive(
    st.none() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_KEYS = (
    "schema", "id", "state", "priority", "attempts", "max_retries", "timeout", "retry_on", "cwd",
    "env", "after", "after_any", "created_at", "updated_at", "run_at", "history", "\x1b[2J", "new",
)  # fmt: skip
_ATTEMPT_KEYS = (
    "number", "worker", "started_at", "finished_at", "duration", "exit_code", "signal", "outcome",
    "log", "extra",
)  # fmt: skip


def _attempt(changes: dict[str, Any]) -> dict[str, Any]:
    return {"outcome": "failed", "started_at": "2026-01-01T00:00:00Z", "exit_code": 1} | changes


_attempts = st.dictionaries(st.sampled_from(_ATTEMPT_KEYS), _values, max_size=2).map(_attempt)


def _whole(job_id: str, state: State) -> dict[str, Any]:
    attempt = Attempt(
        number=1, worker="w-1", started_at=NOON, finished_at=NOON, duration_seconds=1.0,
        exit_code=1, signal=None, outcome=Outcome.FAILED, log=f"{job_id}.1.log",
    )  # fmt: skip
    job = make_job(job_id, command="true", cwd="/", state=state, history=(attempt,))
    document: dict[str, Any] = json.loads(encode_job(job))
    return document


def _changed(
    whole: dict[str, Any], changes: dict[str, Any], history: list[Any], cut: int | None
) -> bytes:
    # The command stays: what runs must be harmless.
    document = whole | changes
    if history:
        document["history"] = history
    return json.dumps(document).encode()[:cut]


# What JSON has no value for in Python, or refuses.
TEXTS = (
    b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"[" * 2000,
    b'{"command":"true","x":' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"command":"true","command":"false"}', b'{"command":"true","x":NaN}',
    b'{"command":"true","x":1e400}', b'{"command":"true","x":' + b"9" * 5000 + b"}",
    b'{"command":"tr\\u0000ue"}', b'{"command":"true","x":"\\ud800"}', b'{"schema":2}',
    b'{"command":"true"}', b"1", b"2", b"9" * 5000, b'{"timeout":"none"}', b'{"timeout":1e400}',
    b'{"now":true}', b'{"seconds":"nan"}', b'{"seconds":1e300,"workers":["\\u0000","../x"]}',
    b'{"lengths":[1,2]}', b"\0" * 100,
)  # fmt: skip
_records = st.dictionaries(
    st.sampled_from(
        ["name", "pid", "host", "since", "job", "attempt", "started_at", "slot", "recent",
         "outcomes", "lengths", "seconds", "workers"]
    ),
    _values,
).map(
    lambda changes: json.dumps(
        {"name": "w-1", "pid": 1, "host": "h", "since": "2026-01-01T00:00:00Z"} | changes
    ).encode()
)  # fmt: skip
_documents = st.builds(
    _changed,
    st.builds(_whole, st.sampled_from(IDS), st.sampled_from(State)),
    st.dictionaries(st.sampled_from(_KEYS), _values, max_size=2),
    st.lists(_attempts, max_size=2),
    st.none() | st.just(-3),
)
_contents = st.one_of(
    _documents, _documents, st.sampled_from(TEXTS), _records, st.binary(max_size=30)
)

NAMES = (
    b"a.json", b"b-1.json", b".json", b"-x.json", b"..json", b"a.JSON", b".hidden.json",
    b"a\nb.json", b"\x1b[31m.json", b"\xff\xfe.json", b"x" * 250 + b".json", "é.json".encode(),
    b"5-20261399T999999.999999Z-a.json", b"5-xxxxxxxxxxxxxxxxxxxxxxxZ-a.json",
    b"5-20260101T000000.000000Z-.json", b"5-20260101T000000.000000Z-../x.json".replace(b"/", b"_"),
    b"a.1.json", b"a.999999999.json", b"a.0.json", b"b-1.2.json", b"a.1.log", b"b-1.1.log",
    b"a.999999999.log", b"a.control", b".control", b"w-1.control", b"w-1.json", b"spare.1.1",
    b"a", b"b-1", b"a.json.reason", b"put.1.1",
)  # fmt: skip
_names = st.one_of(
    st.sampled_from(NAMES),
    st.builds(
        lambda priority, job_id: pending_name(priority, NOON, job_id).encode(),
        st.integers(0, 9),
        st.sampled_from(IDS),
    ),
    st.sampled_from(IDS).map(lambda job_id: f"{job_id}.json".encode()),
    st.binary(min_size=1, max_size=20)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_") + b".json"),
)  # fmt: skip
KINDS = (
    "directory", "link to a file", "link to a directory", "loop", "dangling", "fifo", "socket",
    "device", "unreadable",
)  # fmt: skip
_MTIMES = (0, 1, -(2**40), 2**40, 1_000_000_000, 4_000_000_000)
puts = st.one_of(
    st.builds(
        Put,
        st.sampled_from([*DIRECTORIES, "blocked/a", "blocked/b-1"]),
        _names,
        st.sampled_from([*["file"] * 8, *KINDS]),
        _contents,
        st.sampled_from(_MTIMES),
    ),
    st.builds(
        Put,
        st.just("."),
        st.sampled_from([name.encode() for name in FILES]),
        st.sampled_from([*["file"] * 30, *KINDS]),
        st.sampled_from(TEXTS) | _records,
        st.sampled_from(_MTIMES),
    ),
)


def put(store: Path, outside: Path, each: Put) -> None:
    """Put one thing into a store, unless there is something already."""
    directory = store / each.directory
    if directory.parent != store.parent and not directory.exists():
        directory.mkdir(mode=0o700)
    if not directory.is_dir() or directory.is_symlink():
        return  # something else was put in its place
    path = os.path.join(os.fsencode(directory), each.name)
    if each.directory == ".":
        with suppress(FileNotFoundError):
            os.unlink(path)
    with suppress(FileExistsError):
        _make(path, os.fsencode(outside), each)
    if each.kind in ("file", "unreadable") and os.path.isfile(path):
        # A file system may not hold such a time.
        with suppress(OSError, OverflowError):
            os.utime(path, (each.mtime, each.mtime), follow_symlinks=False)


def _make(path: bytes, outside: bytes, each: Put) -> None:
    targets = {
        "link to a file": os.path.join(outside, b"file.json"),
        "link to a directory": outside,
        "loop": path,
        "dangling": os.path.join(outside, b"nothing"),
    }
    if each.kind in targets:
        os.symlink(targets[each.kind], path)
    elif each.kind == "directory":
        os.mkdir(path, 0o700)
    elif each.kind == "fifo" or (each.kind == "device" and os.geteuid() != 0):
        os.mkfifo(path, 0o600)
    elif each.kind == "device":
        os.mknod(path, 0o20600, os.makedev(1, 3))
    elif each.kind == "socket":
        with (
            socket.socket(socket.AF_UNIX) as listener,
            _inside(os.path.dirname(path)),
            suppress(OSError),  # a name that is too long for a socket
        ):
            listener.bind(os.path.basename(path))
    elif not os.path.lexists(path):
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(each.content)
        os.chmod(path, 0o000 if each.kind == "unreadable" else 0o600)


@contextmanager
def _inside(directory: bytes) -> Iterator[None]:
    here = os.open(".", os.O_RDONLY)
    os.chdir(directory)
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def snapshot(directory: Path) -> dict[str, tuple[object, ...]]:
    """Return all that is known of what lies in a directory, to compare it later."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, data)
    return found


# --- running commands ---


def run(store: Path, words: Sequence[str]) -> None:
    """Run a command in this process; fail where it does not answer as it must."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with mock.patch.multiple(sys, stdout=stdout, stderr=stderr):
        code = run_command(["--store", str(store), *words])
    stdout.flush()
    stderr.flush()
    # A log is printed as it is.
    told = stdout.buffer.getvalue().decode(errors="replace" if words[0] == "logs" else "strict")
    complaint = stderr.buffer.getvalue().decode()
    check(words, code, told, complaint)


def check(words: Sequence[str], code: int, told: str, complaint: str) -> None:
    """Check what a command has answered: no traceback, one line of error, a code that is told."""
    context = f"{' '.join(words)}: {code}\n{told}\n{complaint}"
    assert "Traceback" not in complaint, context
    assert code in EXIT_CODES or (words[0] == "wait" and code != 70), context
    errors = [line for line in complaint.splitlines() if line.startswith("Error: ")]
    assert len(errors) == (code not in (0, 1) and words[0] != "wait") or words[0] == "wait", context
    if words[0] != "logs":
        assert all(each.isprintable() or each == "\n" for each in told + complaint), context
    if "--json" in words and code in (0, 1):
        json.loads(told)


def drain(store: Path) -> None:
    """Let workers run what is due; fail where they do not come to an end, or not in order."""
    process = subprocess.Popen(
        [*QUEUECTL, "--store", store, "worker", "start", "--drain"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": "/"},
    )
    try:
        told, complaint = process.communicate(timeout=_WORKER_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        told, complaint = process.communicate()
        raise AssertionError(f"workers do not end:\n{complaint.decode(errors='replace')}") from None
    encoding = locale.getencoding()  # what is told is in that of the locale
    context = f"worker start: {process.returncode}\n{told.decode(encoding)}\n"
    context += complaint.decode(encoding)
    assert b"Traceback" not in complaint, context
    assert process.returncode in EXIT_CODES, context
    assert b"failed with exit code" not in complaint, context


def _kill(process: "subprocess.Popen[bytes]") -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    for pid in (*map(int, workers), process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
