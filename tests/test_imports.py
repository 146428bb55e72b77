"""What each command has to load."""

import subprocess
import sys
from pathlib import Path

from tests.modules import PACKAGE_DIR

from queuectl.store import open_store

# What a quick command must do without: each costs more than the rest of it.
SLOW = {
    "asyncio",
    "concurrent.futures",
    "filelock",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "pathlib",
    "shutil",
    "socket",
    "subprocess",
    "tabulate",
    "tempfile",
}


def loaded_by(code: str, store_dir: Path) -> set[str]:
    """Return the modules that a run of the program has loaded at its end."""
    program = (
        f"import sys\nfrom queuectl.cli.group import run\n{code}\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"QUEUECTL_STORE": str(store_dir), "PYTHONPATH": str(PACKAGE_DIR.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split("\n"))


def test_an_enqueue_loads_nothing_slow(tmp_path: Path) -> None:
    """An enqueue does without what other commands need, and without what made the store."""
    store_dir = tmp_path / "store"
    open_store(str(store_dir), create=True).close()
    loaded = loaded_by("assert run(['enqueue', 'true']) == 0", store_dir)
    assert loaded & (SLOW | {"unicodedata", "queuectl.text"}) == set()


def test_an_enqueue_loads_no_other_command(tmp_path: Path) -> None:
    """A command does not pay for the others."""
    loaded = loaded_by("assert run(['enqueue', 'true']) == 0", tmp_path)
    commands = {name for name in loaded if name.startswith("queuectl.cli.")}
    assert commands == {f"queuectl.cli.{name}" for name in ("app", "enqueue", "group", "params")}
    assert not loaded & {"queuectl.worker", "queuectl.worker.pool", "queuectl.worker.command"}


def test_an_enqueue_loads_only_what_it_reads(tmp_path: Path) -> None:
    """Times, batches and stdin cost nobody who does not use them."""
    loaded = loaded_by("assert run(['enqueue', 'true']) == 0", tmp_path)
    assert not loaded & {"queuectl.when", "queuectl.batch", "queuectl.cli.streams", "zoneinfo"}


def test_an_enqueue_with_an_id_loads_filelock_alone(tmp_path: Path) -> None:
    """A chosen id takes pending.lock, and nothing else that is slow but what filelock loads."""
    loaded = loaded_by("assert run(['enqueue', 'true', '--id', 'a']) == 0", tmp_path)
    assert "filelock" in loaded
    assert not loaded & {"tabulate", "subprocess", "multiprocessing"}


def test_help_loads_no_command(tmp_path: Path) -> None:
    """The help of all commands comes from one table."""
    loaded = loaded_by("assert run(['--help']) == 0", tmp_path)
    commands = {name for name in loaded if name.startswith("queuectl.cli.")}
    assert commands == {"queuectl.cli.app", "queuectl.cli.group"}
