"""What ``queuectl enqueue`` says of a store or a directory that it cannot use."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.documents import HINT, pending, queuectl, snapshot
from tests.cli.placing import Placing


def test_a_directory_that_is_gone_needs_another(store_dir: Path, tmp_path: Path) -> None:
    """A job cannot be told to run where nothing is."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir "{gone}"; exec "{sys.executable}" -P -m queuectl enqueue true "$@"'
    env = {**os.environ, "QUEUECTL_STORE": str(store_dir)}
    command = ["/bin/sh", "-c", script, "sh"]
    done = subprocess.run(command, cwd=gone, env=env, capture_output=True, check=False)
    message = f"Error: The current directory is gone; give --cwd.{HINT}\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", message)
    gone.mkdir()
    done = subprocess.run(
        [*command, "--cwd", "/"], cwd=gone, env=env, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_id_that_cannot_be_printed_is_in_the_message(store_dir: Path) -> None:
    """A full disk behind stdout, or a closed one, is an error, and the id is not lost."""
    with open("/dev/full", "wb") as full:
        done = queuectl("enqueue", "true", "--id", "a", store_dir=store_dir, stdout=full)
    assert done.returncode == 74
    assert done.stderr.decode() == (
        "Error: stdout cannot be written (No space left on device), but added to the queue: a\n"
    )
    done = queuectl(
        "enqueue", "true", "--id", "b", store_dir=store_dir, preexec_fn=lambda: os.close(1)
    )
    assert done.returncode == 74
    assert done.stderr.decode().endswith("but added to the queue: b\n")
    with open("/dev/full", "wb") as full:
        done = queuectl(
            "enqueue", "--batch", "-", store_dir=store_dir, stdout=full,
            input=b'{"id": "c", "command": "true"}\n{"id": "d", "command": "true"}\n',
        )  # fmt: skip
    assert done.stderr.decode() == (
        "Error: stdout cannot be written (No space left on device), but added to the queue: c d\n"
    )
    assert len(pending(store_dir)) == 4


def test_a_full_disk_is_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the document cannot be written nothing is enqueued, and the store is named."""
    assert run("enqueue", "true")[0] == 0
    before = snapshot(run.store_dir)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    code, stdout, stderr = run("enqueue", "true")
    assert (code, stdout) == (74, "")
    assert stderr.startswith(f"Error: {run.store_dir}")
    assert stderr.endswith("No space left on device\n")
    assert stderr.count("\n") == 1
    assert snapshot(run.store_dir) == before


def test_a_store_that_is_a_file_cannot_be_used(run: Run) -> None:
    """A file where the store should be is left alone."""
    run.store_dir.write_text("mine")
    assert run("enqueue", "true") == (
        69,
        "",
        f"Error: the store {run.store_dir} cannot be used: Not a directory\n",
    )
    assert run.store_dir.read_text() == "mine"


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_store_that_others_can_write_to_is_refused(run: Run, place: Placing, mode: int) -> None:
    """Whoever can write into a store runs commands, so nothing is added to one that is open."""
    run.store_dir.chmod(mode)
    before = snapshot(run.store_dir)
    answer = run("enqueue", "true")
    path = run.store_dir
    refused = f"Error: {path} can be written to by others (mode {mode:04o}): chmod 700 {path}\n"
    assert answer == (77, "", refused)
    assert snapshot(run.store_dir) == before


def without_root_rights(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program as somebody whom the modes of files hold back; root is made so, too."""
    command = [sys.executable, "-m", "queuectl", *words]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root can write everywhere, and there is no setpriv to hold it back")
        bounds = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={bounds}", *command]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.parametrize("name", ["tmp", "pending"])
def test_a_store_that_cannot_be_written_is_told(run: Run, place: Placing, name: str) -> None:
    """A store without the right to write is an I/O error that names it, and stays what it was."""
    before = snapshot(run.store_dir)
    (run.store_dir / name).chmod(0o500)
    done = without_root_rights("--store", str(run.store_dir), "enqueue", "true")
    (run.store_dir / name).chmod(0o700)
    message = f"Error: {run.store_dir}: nothing is enqueued: Permission denied\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (74, b"", message)
    assert snapshot(run.store_dir) == before


def test_a_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A place where no store can be made is one that cannot be reached."""
    (tmp_path / "closed").mkdir(mode=0o500)
    done = without_root_rights("--store", str(tmp_path / "closed" / "q"), "enqueue", "true")
    message = f"Error: {tmp_path}/closed/q cannot be made: Permission denied\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (69, b"", message)
    assert not list((tmp_path / "closed").iterdir())
