"""Drive a shell in a real terminal, by tmux."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.process.support import until

import queuectl

TMUX = shutil.which("tmux")
needs_tmux = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")


class Terminal:
    """Drive a shell in a terminal of 80 columns and 24 lines."""

    def __init__(self, store_dir: Path, directory: Path, shell: str = "sh") -> None:
        self._socket = directory / "tmux"
        self.directory = directory
        environment = {
            "PATH": f"{directory}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "QUEUECTL_STORE": str(store_dir),
            "PYTHONPATH": str(Path(queuectl.__file__).parents[1]),
        }
        program = directory / "queuectl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m queuectl "$@"\n')
        program.chmod(0o755)
        self._tmux("new-session", "-d", "-x", "80", "-y", "24", shell, env=environment)

    def _tmux(self, *words: str, env: dict[str, str] | None = None) -> str:
        assert TMUX is not None
        done = subprocess.run(
            [TMUX, "-S", str(self._socket), "-f", "/dev/null", *words],
            env=env or os.environ | {"LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
            timeout=20,
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        """Type keys, or texts."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def shown(self) -> str:
        """Return what is on the screen."""
        return self._tmux("capture-pane", "-p")

    def shows(self, text: str) -> str:
        """Return what is on the screen when that holds a text."""
        screen = ""

        def holds() -> bool:
            nonlocal screen
            screen = self.shown()
            return text in screen

        try:
            until(holds, f"the screen shows {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{screen}") from None
        return screen

    def mode(self) -> str:
        """Return whether the alternate screen is on, the cursor is shown, and lines wrap."""
        return self._tmux("display-message", "-p", "#{alternate_on}#{cursor_flag}#{wrap_flag}")

    def close(self) -> None:
        """End the shell and what runs in it."""
        with suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")


@contextmanager
def opened(store_dir: Path, shell: str = "sh") -> Iterator[Terminal]:
    """Open a terminal whose shell uses a store."""
    with tempfile.TemporaryDirectory() as directory:  # short: a socket's path has 107 bytes at most
        terminal = Terminal(store_dir, Path(directory), shell)
        try:
            yield terminal
        finally:
            terminal.close()
