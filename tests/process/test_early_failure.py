"""A pool whose workers cannot work."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.process.support import until

SCRIPT = """
import sys
from queuectl.worker import pool, restart

def fail(process):
    raise RuntimeError("broken")

pool.WorkerProcess.run = fail
restart._PAUSE_SECONDS = 0.001
sys.exit(pool.run_pool(sys.argv[1], 2, drain=False, detach=False, quiet=True))
"""
REFUSED = """
import sys
from queuectl.worker import pool, restart
from queuectl.errors import ConfigError

def refuse(process):
    raise ConfigError("a setting is wrong")

pool.WorkerProcess.run = refuse
restart._PAUSE_SECONDS = 0.001
sys.exit(pool.run_pool(sys.argv[1], 1, drain=False, detach=len(sys.argv) > 2, quiet=True))
"""
WITHOUT_DESCRIPTORS = """
import resource
from queuectl.nonblocking import NonBlockingWriter
from queuectl.worker.events import EventLog
try:
    raise RuntimeError("broken")
except RuntimeError:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    EventLog("w", NonBlockingWriter(2), quiet=False).exception()
"""
NONE_STARTS = """
import sys
from queuectl.worker import pool
from queuectl.errors import StoreError

def fail(supervisor, ready_fd):
    raise StoreError("no room")

pool.Supervisor.run = fail
try:
    pool.run_pool(sys.argv[1], 2, drain=False, detach=True, quiet=False)
except StoreError as error:
    sys.exit(str(error))
"""


def test_a_pool_whose_workers_all_fail_at_their_start_gives_up(tmp_path: Path) -> None:
    """The supervisor does not start workers for ever that end with a bug at once: exit code 70."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "q")], capture_output=True, check=False
    )
    assert done.returncode == 70
    assert b"giving up: the workers fail at their start" in done.stderr
    assert done.stderr.count(b"RuntimeError: broken") in (10, 11, 12)


def test_what_a_worker_failed_of_is_told_in_one_piece(tmp_path: Path) -> None:
    """Others write to the same place: their lines must not come between those of a traceback."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:  # keeps apart what is written at once
            command = [sys.executable, "-c", SCRIPT, str(tmp_path / "q")]
            process = subprocess.Popen(command, stderr=theirs.fileno())
        pieces = []
        # Python writes nothing, too, now and then: only two in a row are the end.
        while (piece := ours.recv(1 << 16)) or (piece := ours.recv(1 << 16)):
            pieces.append(piece)
    assert process.wait() == 70
    told = [piece for piece in pieces if b"RuntimeError" in piece or b"Traceback" in piece]
    assert len(told) in (10, 11, 12)
    for piece in told:
        assert piece.startswith(b"Traceback (most recent call last):\n")
        assert piece.endswith(b"\nRuntimeError: broken\n")


def test_what_a_worker_failed_of_is_told_without_descriptors() -> None:
    """Nothing may have to be opened for it: that may be what it failed of."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS], capture_output=True, check=False
    )
    assert done.stderr.endswith(b"RuntimeError: broken\n")
    assert b"OSError" not in done.stderr


def test_a_detached_pool_of_which_no_worker_starts_is_not_told_as_started(tmp_path: Path) -> None:
    """Whoever started it learns at once that nobody works, and where the reason is told."""
    done = subprocess.run(
        [sys.executable, "-c", NONE_STARTS, str(tmp_path / "q")], capture_output=True, check=False
    )
    log = tmp_path / "q" / "worker.log"
    assert done.returncode == 1
    assert done.stderr.decode() == f"no worker could start; {log} says why\n"
    assert log.read_text().endswith("Z supervisor cannot work: no room\n")


def test_workers_that_are_refused_at_their_start_say_why_in_a_line(tmp_path: Path) -> None:
    """What can be expected to go wrong is no bug: no traceback, and its own exit code."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path / "q")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    assert done.stderr.count(" cannot work: a setting is wrong\n") == 10
    assert " supervisor giving up: the workers fail at their start\n" in done.stderr


def test_detached_workers_that_are_refused_say_why_in_a_line(tmp_path: Path) -> None:
    """In worker.log as well, and whoever started them is told where to look."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path / "q"), "detached"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no worker could start" in done.stderr
    told = until(
        lambda: text if "giving up" in (text := (tmp_path / "q/worker.log").read_text()) else "",
        "the supervisor has given up",
    )
    assert "Traceback" not in told
    assert " cannot work: a setting is wrong\n" in told
