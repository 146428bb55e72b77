"""Each kind of damage that queuectl doctor finds, as tests inflict it on a store."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.directory.support import grow_old
from tests.jobs import LATER, NOON, attempt, make_job

from queuectl.document import encode_job
from queuectl.job import State
from queuectl.store.names import pending_name, processing_name
from queuectl.store.protocol import Store

Damage = Callable[[Store, Path], None]


def write(path: Path, data: bytes, *, seconds_old: float = 60) -> Path:
    """Put a file where nobody would, some time ago."""
    path.write_bytes(data)
    path.chmod(0o600)
    grow_old(path, seconds_old)
    return path


def document(
    job_id: str, state: State = State.PENDING, *, runs: int = 0, **changes: object
) -> bytes:
    """Return the document of a job that has run so often."""
    job = make_job(job_id, **({"state": state} | changes))
    history = tuple(attempt(job_id, number) for number in range(1, runs + 1))
    return encode_job(job._replace(history=history))


def jobs_in(path: Path) -> set[bytes]:
    """Return what is to be lost in no case: the words of each document, wherever it is."""
    return {
        line
        for file in path.rglob("*")
        if file.is_file() and not file.is_symlink() and file.parent.name != "workers"
        for line in file.read_bytes().splitlines()
        if b'"command"' in line or b"broken" in line
    }


def unreadable_in_completed(store: Store, path: Path) -> None:
    """Break a document by hand."""
    write(path / "completed" / "b.json", b"{broken")


def unreadable_in_pending(store: Store, path: Path) -> None:
    """Leave a document empty, as a power failure leaves a file that was not synced."""
    write(path / "pending" / pending_name(5, NOON, "b"), b"")


def unreadable_in_processing(store: Store, path: Path) -> None:
    """Break a document that nobody runs."""
    write(path / "processing" / "b.1.json", b"{broken")


def unreadable_in_blocked(store: Store, path: Path) -> None:
    """Break a document that waits."""
    (path / "blocked" / "keep").mkdir(mode=0o700)
    write(path / "blocked" / "keep" / "b.json", b"broken")


def no_regular_file(store: Store, path: Path) -> None:
    """Put a FIFO where a document belongs."""
    os.mkfifo(path / "completed" / "b.json", 0o600)


def a_symlink(store: Store, path: Path) -> None:
    """Let a name lead to another document."""
    (path / "dead" / "b.json").symlink_to(path / "completed" / "keep.json")


def another_id(store: Store, path: Path) -> None:
    """Copy a document and change the name alone."""
    write(path / "pending" / pending_name(3, LATER, "b"), document("other"))


def another_state(store: Store, path: Path) -> None:
    """Die between the move and the rewrite of a cancel."""
    write(path / "cancelled" / "b.json", document("b"))


def loose_document(store: Store, path: Path) -> None:
    """Copy a document here under a loose umask."""
    write(path / "completed" / "b.json", document("b", State.COMPLETED)).chmod(0o644)


def loose_directory(store: Store, path: Path) -> None:
    """Let everybody write to a directory."""
    (path / "logs").chmod(0o777)


def loose_root(store: Store, path: Path) -> None:
    """Let everybody look into the store."""
    path.chmod(0o755)


def missing_directory(store: Store, path: Path) -> None:
    """Delete a directory that is empty."""
    (path / "dead").rmdir()


def orphan(store: Store, path: Path) -> None:
    """Die while the command runs."""
    write(path / "processing" / processing_name("b", 1), document("b"))


def ahead(store: Store, path: Path) -> None:
    """Die between the record and the move."""
    write(path / "processing" / processing_name("b", 1), document("b", State.DEAD, runs=1))


def no_attempt(store: Store, path: Path) -> None:
    """Move a job into processing/ by hand."""
    write(path / "processing" / "b.json", document("b"))


def two_pending_names(store: Store, path: Path) -> None:
    """Copy a pending job."""
    write(path / "pending" / pending_name(5, NOON, "b"), document("b"))
    write(path / "pending" / pending_name(5, LATER, "b"), document("b", runs=1))


def ghost(store: Store, path: Path) -> None:
    """Bring back a name that had moved on, as a power failure may."""
    write(path / "processing" / processing_name("b", 1), document("b"))
    write(path / "completed" / "b.json", document("b", State.COMPLETED, runs=1))


def same_file_twice(store: Store, path: Path) -> None:
    """Keep both names of a rename, as a power failure may."""
    data = document("b", State.COMPLETED, runs=1)
    os.link(write(path / "completed" / "b.json", data), path / "processing" / "b.1.json")


def gone_parent(store: Store, path: Path) -> None:
    """Delete a job that another one waits for."""
    (path / "blocked" / "nobody").mkdir(mode=0o700)
    write(path / "blocked" / "nobody" / "b.json", document("b", State.BLOCKED, after=("nobody",)))


def log_of_no_job(store: Store, path: Path) -> None:
    """Delete a job without its log."""
    write(path / "logs" / "b.1.log", b"broken pipe\n")


def abandoned_file(store: Store, path: Path) -> None:
    """Die while a document is written, two days ago."""
    write(path / "tmp" / "b.4711.1", b"", seconds_old=2 * 86400)


def stale_record(store: Store, path: Path) -> None:
    """Die as a worker."""
    write(path / "workers" / "w-2.json", b"{}")


def stale_fifo(store: Store, path: Path) -> None:
    """Die as a worker that was about to leave."""
    os.mkfifo(path / "workers" / "w-2.control", 0o600)


def bad_format(store: Store, path: Path) -> None:
    """Break the format."""
    write(path / "format", b"one\n")


def no_format(store: Store, path: Path) -> None:
    """Delete the format."""
    (path / "format").unlink()


def format_that_is_no_file(store: Store, path: Path) -> None:
    """Put a directory in the place of the format."""
    (path / "format").unlink()
    (path / "format").mkdir()


def bad_config(store: Store, path: Path) -> None:
    """Write settings by hand, some of them wrong."""
    write(path / "config.json", b'{"max-retries": "7", "timeout": "broken", "nonsense": "1"}')


def torn_config(store: Store, path: Path) -> None:
    """Write settings by hand, and stop half way."""
    write(path / "config.json", b'{"broken')


def bad_stop(store: Store, path: Path) -> None:
    """Write a request to stop by hand."""
    write(path / "stop_workers", b"broken")


DAMAGES: list[tuple[Damage, str, str]] = [
    (unreadable_in_completed, "unreadable", "completed/b.json"),
    (unreadable_in_pending, "unreadable", f"pending/{pending_name(5, NOON, 'b')}"),
    (unreadable_in_processing, "unreadable", "processing/b.1.json"),
    (unreadable_in_blocked, "unreadable", "blocked/keep/b.json"),
    (no_regular_file, "no regular file", "completed/b.json"),
    (a_symlink, "no regular file", "dead/b.json"),
    (another_id, "wrong document", f"pending/{pending_name(3, LATER, 'b')}"),
    (another_state, "wrong document", "cancelled/b.json"),
    (loose_document, "mode 0644", "completed/b.json"),
    (loose_directory, "mode 0777", "logs"),
    (loose_root, "mode 0755", "."),
    (missing_directory, "missing directory", "dead"),
    (orphan, "attempt of nobody", "processing/b.1.json"),
    (ahead, "ended attempt that did not move on", "processing/b.1.json"),
    (no_attempt, "no attempt", "processing/b.json"),
    (two_pending_names, "a job in two places", f"pending/{pending_name(5, NOON, 'b')}"),
    (ghost, "a job in two places", "processing/b.1.json"),
    (same_file_twice, "a job in two places", "completed/b.json"),
    (gone_parent, "waits for nobody, which is gone", "blocked/nobody/b.json"),
    (log_of_no_job, "log of no job", "logs/b.1.log"),
    (abandoned_file, "abandoned file", "tmp/b.4711.1"),
    (stale_record, "record of a worker that is gone", "workers/w-2.json"),
    (stale_fifo, "record of a worker that is gone", "workers/w-2.control"),
    (bad_format, "bad format", "format"),
    (no_format, "bad format", "format"),
    (format_that_is_no_file, "no regular file", "format"),
    (bad_config, "bad config", "config.json"),
    (torn_config, "bad config", "config.json"),
    (bad_stop, "bad request to stop", "stop_workers"),
]
