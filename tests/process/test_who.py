"""What others may see and change: modes, secrets, and what reaches a terminal."""

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.process.support import Queue, until
from tests.program import QUEUECTL
from tests.trees import tree

from queuectl.store.layout import DIRECTORIES

STRANGER = 12345
SECRET = "swordfish-61bb5e"
# All commands that look at a store or change it, but for those that wait for ever.
COMMANDS = (
    ("enqueue", "true"),
    ("enqueue", "true", "--id", "chosen"),
    ("enqueue", "true", "--after", "parent"),
    ("enqueue", "--batch", "-"),
    ("worker", "start", "--drain"),
    ("worker", "start", "--detach"),
    ("worker", "stop"),
    ("worker", "stop", "--now"),
    ("worker", "list"),
    ("status",),
    ("list",),
    ("show", "parent"),
    ("logs", "parent"),
    ("wait", "parent"),
    ("cancel", "parent"),
    ("retry", "parent"),
    ("dlq", "list"),
    ("dlq", "show", "parent"),
    ("dlq", "retry", "--all"),
    ("dlq", "purge"),
    ("purge",),
    ("config", "list"),
    ("config", "get", "priority"),
    ("config", "set", "priority", "3"),
    ("config", "unset", "priority"),
    ("metrics",),
)


def live_a_life(queue: Queue) -> None:
    """Let everything happen that writes into a store: ends of all kinds, a crash, a cancel."""
    queue.ok("config", "set", "priority", "4")
    queue.configure(backoff_base=1, backoff_max="0.01s", kill_grace="0.5s", keep_logs="10d")
    gate = queue.gate()
    queue.enqueue("echo output", "good", "--env", "GIVEN=told")
    queue.enqueue("exit 3", "bad", "--max-retries", "2")
    queue.enqueue("no-such-command", "missing", "--max-retries", "1")
    queue.enqueue("sleep 100", "slow", "--max-retries", "1", "--timeout", "0.1s")
    queue.enqueue(gate.wait, "lost", "--max-retries", "1")
    queue.enqueue("true", "child", "--after", "good")
    queue.enqueue("true", "blocked", "--after", "bad")
    queue.enqueue("true", "later", "--delay", "1h")
    dropped = queue.here / "dropped.json"
    dropped.write_text('{"command": "true"}')
    dropped.chmod(0o600)
    dropped.rename(queue.store / "pending" / "dropped.json")
    broken = queue.store / "pending" / "broken.json"
    broken.write_text("{")
    broken.chmod(0o600)
    os.utime(broken, (0, 0))
    pool = queue.pool().ready()
    gate.reached()
    # Else the kill may come between the making of a file in tmp/ and the setting of its mode.
    until(lambda: queue.ids("processing") == ["lost.1"], "the other jobs are settled")
    os.kill(pool.pids()[0], signal.SIGKILL)
    gate.open()
    queue.until_in("dead", "lost")
    queue.until_in("dead", "bad")
    queue.until_in("completed", "child")
    gate = queue.gate()
    queue.enqueue(gate.wait, "running")
    gate.reached()
    queue.ok("cancel", "running", "later")
    assert pool.stop() == 0
    assert queue.ids("corrupt") == ["broken", "broken.json"] or queue.ids("corrupt") == ["broken"]
    queue.ok("retry", "running")
    (_name,) = queue.ids("pending")
    queue.ok("worker", "start", "--detach")
    queue.ok("worker", "stop", "--now")
    queue.ok("dlq", "retry", "bad")
    queue.ok("config", "set", "priority", "3")
    queue.ok("metrics")
    assert queue("doctor").exit_code == 0


# --- refused ---


def give_away(path: Path) -> None:
    """Let it belong to somebody else."""
    os.chown(path, STRANGER, -1)


def open_to_group(path: Path) -> None:
    """Let a group write to it."""
    path.chmod(0o720)


def open_to_world(path: Path) -> None:
    """Let everybody write to it."""
    path.chmod(0o702)


def replace_by_symlink(path: Path) -> None:
    """Put a symlink to a directory in its place, one that is ours alone."""
    path.rename(path.parent.with_name("moved"))
    path.symlink_to(path.parent.with_name("moved"))


@pytest.mark.parametrize("name", ["", *DIRECTORIES])
@pytest.mark.parametrize(
    "loosen",
    [
        pytest.param(
            give_away, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give away")
        ),
        open_to_group,
        open_to_world,
        replace_by_symlink,
    ],
)
def test_every_command_refuses_a_store_that_is_not_its_users_alone(
    queue: Queue, loosen: Callable[[Path], None], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 77, one line that names the directory, and nothing is changed or run."""
    if not name and loosen is replace_by_symlink:
        pytest.skip("the store itself may be reached through a symlink")
    queue.enqueue("true", "parent")
    loosen(queue.store / name)
    before = tree(queue.store)
    from queuectl.cli.group import run

    for words in COMMANDS:
        if words[0] == "metrics":
            pytest.importorskip("prometheus_client")
        code = run(["--store", str(queue.store), *words])
        stdout, stderr = capfd.readouterr()
        assert (code, stdout) == (77, ""), words
        assert re.fullmatch(rf"Error: {queue.store / name} .*\n", stderr), words
    assert tree(queue.store) == before


# --- modes ---


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids=oct)
def test_every_file_is_its_owners_alone_under_any_umask(queue: Queue, umask: int) -> None:
    """Directories 0700, files 0600, whatever has happened; nobody else can even look."""
    before = os.umask(umask)
    try:
        live_a_life(queue)
    finally:
        os.umask(before)
    paths = [queue.store, *queue.store.rglob("*")]
    assert len(paths) > 40
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


# --- secrets ---


def test_no_secret_of_the_environment_is_in_a_file_of_the_store(queue: Queue) -> None:
    """Neither that of whoever enqueues nor that of the workers; what was named is."""
    queue.env["API_TOKEN"] = SECRET
    queue.env["GIVEN"] = "from outside"
    live_a_life(queue)
    queue.enqueue("true", "named", "--env", "GIVEN")
    contents = {path: path.read_bytes() for path in queue.store.rglob("*") if path.is_file()}
    assert [path for path, data in contents.items() if SECRET.encode() in data] == []
    assert [
        path.stem.rpartition("-")[2] for path, data in contents.items() if b"from outside" in data
    ] == ["named"]


# --- terminals ---

# The bytes are the same in any locale; the terminal takes them as text in that of the tests.
EVIL = os.fsdecode("\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e\x08".encode())
SEEN = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80\xae"
    if sys.getfilesystemencoding() == "utf-8"
    else rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)


def on_a_terminal(queue: Queue, *words: str, until_seen: bytes = b"") -> bytes:
    """Return what a command writes to a terminal, stdout and stderr alike."""
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        [*QUEUECTL, *words],
        env=queue.env | {"TERM": "xterm"},
        cwd=queue.here,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    )
    os.close(other)
    seen = b""
    poll = select.poll()
    poll.register(terminal, select.POLLIN)
    while poll.poll(20_000):
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the last one has closed it
            break
        seen += part
        if until_seen and until_seen in seen:
            process.terminate()
    os.close(terminal)
    process.wait(20)
    return seen


def make_everything_evil(queue: Queue) -> None:
    """Let all that jobs, hands and strangers can bring hold what a terminal would obey."""
    place = queue.here / EVIL
    place.mkdir()
    queue.enqueue(f"echo '{EVIL}'; exit 1", "dead", "--max-retries", "1", "--env", f"NAME={EVIL}",
                  "--cwd", str(place))  # fmt: skip
    queue.enqueue(f": '{EVIL}'", "done")
    queue.drain()
    queue.enqueue(f": '{EVIL}'", "waits", "--cwd", str(place))
    (waiting,) = (queue.store / "pending").iterdir()
    document = json.loads(waiting.read_text()) | {f"key{EVIL}": EVIL}
    waiting.write_text(json.dumps(document))
    for state in ("pending", "processing", "completed", "dead", "blocked", "corrupt", "logs"):
        with suppress(OSError):
            (queue.store / state / f"{EVIL}.json").write_text(f"{{{EVIL}")
    (queue.store / "completed" / "broken.json").write_text(f'{{"{EVIL}')
    (queue.store / "dead" / "odd.json").write_text(json.dumps({"command": 3, EVIL: EVIL}))
    document["history"] = [{"number": EVIL}]
    (queue.store / "dead" / "odder.json").write_text(json.dumps(document | {"id": EVIL}))
    record = {
        "name": EVIL, "pid": 1, "host": EVIL, "since": "2026-01-01T00:00:00+00:00", "job": EVIL,
        "attempt": EVIL,
    }  # fmt: skip
    (queue.store / "workers" / "w-evil.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def evil_queue(tmp_path_factory: pytest.TempPathFactory) -> Queue:
    """Return a store in which everything is hostile, and nothing runs."""
    queue = Queue(tmp_path_factory.mktemp("evil"))
    make_everything_evil(queue)
    return queue


@pytest.mark.parametrize(
    "words",
    [
        ("list",), ("list", "--state", "dead"), ("list", "--json"),
        ("list", "--command-matches", "."),
        ("show", "dead"), ("show", "waits"), ("show", "waits", "--json"), ("show", "broken"),
        ("show", "odd"), ("show", "odder"), ("show", EVIL), ("logs", "dead"),
        ("logs", "dead", "-f"),
        ("logs", EVIL), ("wait", EVIL), ("cancel", EVIL), ("retry", EVIL), ("dlq", "list"),
        ("dlq", "show", "dead"), ("dlq", "show", "odder"), ("dlq", "retry", EVIL),
        ("status",), ("worker", "list"), ("worker", "list", "--json"), ("doctor",),
        ("doctor", "--json"), ("config", "set", "priority", EVIL), ("config", "get", EVIL),
        ("enqueue", "true", "--id", EVIL), ("enqueue", "true", "--cwd", EVIL),
        ("enqueue", "true", "--delay", EVIL), ("enqueue", "true", "--run-at", EVIL),
        ("enqueue", "true", "--after", EVIL), ("enqueue", '{"command": "x", "' + EVIL + '": 1}'),
        ("enqueue", '{"command": "x", "id": "' + repr(EVIL)[1:-1] + '"}'),
        ("enqueue", "--batch", EVIL), ("--store", f"/nowhere/{EVIL}", "list"),
        ("--store", f"/dev/null/{EVIL}", "enqueue", "true"), (EVIL,), ("list", f"--{EVIL}"),
        ("list", "--sort", EVIL), ("list", "--command-matches", f"({EVIL}"),
        ("purge", "--older-than", EVIL),
        ("help", EVIL), ("completion", EVIL), ("metrics",),
    ],
    ids=lambda words: "-".join(words).replace(EVIL, "EVIL")[:40],
)  # fmt: skip
def test_no_command_sends_a_terminal_what_others_brought(
    evil_queue: Queue, words: tuple[str, ...]
) -> None:
    """Control characters, and those that turn the text round, are shown and not sent."""
    seen = on_a_terminal(evil_queue, *words)
    assert seen
    assert SEEN.findall(seen) == []
    # A carriage return alone would write over the line; the terminal itself makes the other one.
    assert not re.search(rb"\r(?!\n)", seen)
    assert b"Traceback" not in seen


def test_raw_logs_are_sent_as_they_are(evil_queue: Queue) -> None:
    """Who asks for it gets every byte."""
    seen = on_a_terminal(evil_queue, "logs", "dead", "--raw")
    assert seen == os.fsencode(EVIL) + b"\r\n"


def test_the_live_status_sends_only_its_own_sequences(evil_queue: Queue) -> None:
    """What moves the cursor is what the screen itself is drawn with."""
    seen = on_a_terminal(evil_queue, "status", "--watch", until_seen=b"dead   ")
    own = rb"\x1b\[(?:\?1049[hl]|\?25[hl]|\?7[hl]|H|K|J)"
    assert re.search(own, seen)
    assert SEEN.findall(re.sub(own, b"", seen)) == []
    assert b"echo '\\x1b]0;ow" in seen  # how much more has room depends on the columns beside it


def test_a_worker_tells_a_terminal_nothing_to_obey(queue: Queue) -> None:
    """Nor does a worker that stops let its name do so."""
    make_everything_evil(queue)
    fd = os.open(queue.store / "workers" / "w-evil.json", os.O_RDWR)
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX)
    seen = on_a_terminal(queue, "worker", "stop", "--timeout", "0.1s")
    os.close(fd)
    assert b"no workers are running" in seen  # what has such a name is no record
    seen += on_a_terminal(queue, "worker", "start", "--drain")
    assert SEEN.findall(seen) == []
    assert queue("doctor", "--repair").exit_code in (0, 1)
