"""Run commands in this process, on a store of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.cli.placing import Placing

from queuectl.cli.group import run as run_command


class Result(NamedTuple):
    """Hold what a command has answered."""

    exit_code: int
    stdout: str
    stderr: str


class Run:
    """Run a command as its user would, with QUEUECTL_STORE set."""

    def __init__(self, store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store_dir = store_dir
        self._capsys = capsys

    def __call__(self, *words: str) -> Result:
        """Return the exit code, stdout and stderr of ``queuectl`` with these arguments."""
        self._capsys.readouterr()
        exit_code = run_command(words)
        stdout, stderr = self._capsys.readouterr()
        return Result(exit_code, stdout, stderr)


@pytest.fixture
def store_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the store of the test is, or will be."""
    path = tmp_path / "store"
    monkeypatch.setenv("QUEUECTL_STORE", str(path))
    return path


@pytest.fixture
def run(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command on the test's store."""
    return Run(store_dir, capsys)


@pytest.fixture
def place(store_dir: Path) -> Iterator[Placing]:
    """Return what fills the test's store, which is made for it."""
    placing = Placing(store_dir)
    yield placing
    placing.close()
