"""A page that takes the whole terminal and is drawn again each second, until Ctrl-C or q."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable

from queuectl.text import clip, columns, encoded

_INTERVAL_SECONDS = 1.0
# The alternate screen, so that the old one comes back; no cursor; no wrapping of lines.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = b"\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = b"\x1b[H", b"\x1b[K", b"\x1b[J"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP)

Page = Callable[[int, int], list[str]]  # from columns and rows to lines


def show(page: Page) -> None:
    """Draw a page until the user ends it, or a signal, which then ends the process as usual."""
    with Screen() as screen:
        ended_by = None
        while ended_by is None:
            begin = time.monotonic()
            screen.draw(page(*screen.size()))
            # In a long queue a page takes a while: spend a tenth of the time on it at most.
            ended_by = screen.wait(max(_INTERVAL_SECONDS, 10 * (time.monotonic() - begin)))
    if ended_by in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended_by, signal.SIG_DFL)
        signal.raise_signal(ended_by)


class Screen:
    """The terminal, taken for a page and restored whatever happens."""

    def __enter__(self) -> "Screen":
        self._lines: list[str] = []
        self._stdin = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._mode = termios.tcgetattr(self._stdin) if self._stdin is not None else []
        self._signal_fd, self._write_fd = os.pipe()
        os.set_blocking(self._signal_fd, False)
        os.set_blocking(self._write_fd, False)
        self._wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        # Only a signal with a handler in Python writes its number to the pipe.
        self._handlers = {each: signal.signal(each, lambda *_: None) for each in _SIGNALS}
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._restore()
        finally:
            signal.set_wakeup_fd(self._wakeup_fd)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            os.close(self._signal_fd)
            os.close(self._write_fd)

    def _take(self) -> None:
        if self._stdin is not None:
            tty.setcbreak(self._stdin)  # keys arrive at once, and are not shown
        self._write(_ENTER)

    def _restore(self) -> None:
        try:
            self._write(_LEAVE)
        finally:
            if self._stdin is not None:
                termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._mode)

    @staticmethod
    def size() -> tuple[int, int]:
        """Return columns and rows."""
        size = os.get_terminal_size(sys.stdout.fileno())
        return size.columns or 80, size.lines or 24

    def draw(self, lines: list[str]) -> None:
        """Draw lines over the old ones, so that nothing flickers."""
        self._lines = lines
        width, height = self.size()
        rows = [
            # In a full line the cursor stays on the last character, which would be erased.
            encoded(clip(line, width)) + (_END_OF_LINE if columns(line) < width else b"")
            for line in lines[:height]
        ]
        below = b"\r\n" + _END_OF_SCREEN if len(rows) < height else b""
        self._write(_HOME + b"\r\n".join(rows) + below)

    def wait(self, seconds: float) -> signal.Signals | None:
        """Wait until the next drawing; return the signal that ends the page (q: SIGINT)."""
        poll = select.poll()
        poll.register(self._signal_fd, select.POLLIN)
        if self._stdin is not None:
            poll.register(self._stdin, select.POLLIN)
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(rest * 1000):
                data = os.read(fd, 512)
                if fd == self._signal_fd:
                    for number in data:
                        if number in _ENDING:
                            return signal.Signals(number)
                        if number == signal.SIGTSTP:
                            self._suspend()
                        if number == signal.SIGWINCH:
                            return None
                elif not data:
                    return signal.SIGHUP
                elif b"q" in data:
                    return signal.SIGINT
        return None

    def _suspend(self) -> None:
        """Stop as Ctrl-Z does, with the terminal restored meanwhile."""
        self._restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self.draw(self._lines)

    @staticmethod
    def _write(data: bytes) -> None:
        sys.stdout.flush()
        view = memoryview(data)
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]
