"""Show the queue live: a screen that is drawn over again and again, until Ctrl-C or q."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from types import TracebackType

import tabulate  # noqa: F401  (what it draws may need it later, when its file is gone)

from queuectl.cli.app import load_all
from queuectl.cli.dlq import DEAD_HEADERS, dead_cells
from queuectl.cli.output import format_coarse, table_lines
from queuectl.cli.status import status_text
from queuectl.clock import format_instant, utc_now
from queuectl.job import State
from queuectl.logs import LogDir
from queuectl.query import select as select_jobs
from queuectl.store import open_store
from queuectl.store.base import WorkerRecord
from queuectl.text import clip, columns, encoded, printable

_INTERVAL_SECONDS = 1.0
_FAILURES = 5
# The alternate screen, so that what was there comes back; no cursor; no lines that wrap around.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = b"\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = b"\x1b[H", b"\x1b[K", b"\x1b[J"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP)


def watch(location: str) -> None:
    """Draw the queue at a location until the user or a signal ends it.

    SIGTERM and SIGHUP end the process as they would have without a screen to put back.
    """
    load_all()
    with Screen() as screen:
        ended_by = _watch(location, screen)
    if ended_by in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended_by, signal.SIG_DFL)
        signal.raise_signal(ended_by)


def _watch(location: str, screen: "Screen") -> signal.Signals:
    while True:
        begin = time.monotonic()
        screen.draw(page(location, *screen.size()))
        # In a long queue a look takes a while: spend a tenth of the time on it at most.
        pause = max(_INTERVAL_SECONDS, 10 * (time.monotonic() - begin))
        ended_by = screen.wait(pause)
        if ended_by is not None:
            return ended_by


def page(location: str, width: int, height: int) -> list[str]:
    """Return the lines that tell how the queue is, as many as there is room for."""
    # Opened anew each time: the store may not be there yet, or be another one.
    store = open_store(location)
    try:
        now = utc_now()
        counts, workers = store.counts(now), store.workers()
        ended_lately = store.ended_lately()
        logs = LogDir.of(store.location)
        rows = select_jobs(store, (State.DEAD,), now, limit=_FAILURES)
        failures = [dead_cells(row, logs, now) for row in rows]
    finally:
        store.close()
    lines = [printable(f"{format_instant(now)[:19]}Z  {location}"), ""]
    lines += status_text(counts, workers, ended_lately, now).split("\n")
    below = ["", *table_lines(failures, DEAD_HEADERS, width)] if failures else []
    if workers:
        lines.append("")
        # The header and the line that tells of the rest want room, too.
        room = max(height - len(lines) - len(below) - 2, 1)
        lines += table_lines(
            [
                (
                    each.name,
                    each.job or "idle",
                    each.attempt,
                    format_coarse((now - each.since).total_seconds()),
                    each.settled,
                )
                for each in _busy_first(workers)[:room]
            ],
            ["WORKER", "JOB", "ATTEMPT", "FOR", "DONE"],
            width,
        )
        if len(workers) > room:
            lines.append(f"and {len(workers) - room} more")
    return (lines + below)[:height]


def _busy_first(workers: Sequence[WorkerRecord]) -> list[WorkerRecord]:
    return sorted(workers, key=lambda each: (each.job is None, each.since))


class Screen:
    """Have the terminal to ourselves, and give it back as it was, whatever happens."""

    def __enter__(self) -> "Screen":
        """Take the terminal, and the signals that end or resize what is shown."""
        self._lines: list[str] = []
        self._stdin = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._mode = termios.tcgetattr(self._stdin) if self._stdin is not None else []
        self._signal_fd, self._write_fd = os.pipe()
        os.set_blocking(self._signal_fd, False)
        os.set_blocking(self._write_fd, False)
        self._wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        # Python must have a handler for the kernel to tell; the number comes through the pipe.
        self._handlers = {each: signal.signal(each, lambda *_: None) for each in _SIGNALS}
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the terminal back, and the signals."""
        try:
            self._give_back()
        finally:
            signal.set_wakeup_fd(self._wakeup_fd)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            os.close(self._signal_fd)
            os.close(self._write_fd)

    def _take(self) -> None:
        if self._stdin is not None:
            tty.setcbreak(self._stdin)  # keys come at once, and are not shown
        self._write(_ENTER)

    def _give_back(self) -> None:
        try:
            self._write(_LEAVE)
        finally:
            if self._stdin is not None:
                termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._mode)

    @staticmethod
    def size() -> tuple[int, int]:
        """Return columns and lines."""
        size = os.get_terminal_size(sys.stdout.fileno())
        return size.columns or 80, size.lines or 24

    def draw(self, lines: list[str]) -> None:
        """Draw lines over what is there, so that nothing flickers."""
        self._lines = lines
        width, height = self.size()
        rows = [
            # In a full line the cursor stays on the last character, and that would be erased.
            encoded(clip(line, width)) + (_END_OF_LINE if columns(line) < width else b"")
            for line in lines[:height]
        ]
        below = b"\r\n" + _END_OF_SCREEN if len(rows) < height else b""
        self._write(_HOME + b"\r\n".join(rows) + below)

    def wait(self, seconds: float) -> signal.Signals | None:
        """Wait until it is time to look again; return the signal that ends it, q being a SIGINT."""
        poll = select.poll()
        poll.register(self._signal_fd, select.POLLIN)
        if self._stdin is not None:
            poll.register(self._stdin, select.POLLIN)
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(rest * 1000):
                if fd == self._signal_fd:
                    for number in os.read(fd, 512):
                        if number in _ENDING:
                            return signal.Signals(number)
                        if number == signal.SIGTSTP:
                            self._suspend()
                        if number == signal.SIGWINCH:
                            return None
                else:
                    keys = os.read(fd, 512)
                    if not keys:
                        return signal.SIGHUP
                    if b"q" in keys:
                        return signal.SIGINT
        return None

    def _suspend(self) -> None:
        """Be stopped by Ctrl-Z with the terminal as it was, and take it again afterwards."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self.draw(self._lines)

    @staticmethod
    def _write(data: bytes) -> None:
        sys.stdout.flush()
        view = memoryview(data)
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]
