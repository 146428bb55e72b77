"""The signals that stop, pause and wake one process of a pool."""

import os
import signal
from contextlib import suppress
from enum import IntEnum
from types import FrameType


class Stop(IntEnum):
    """How far a process has been asked to stop."""

    NO = 0
    GRACEFUL = 1  # claim nothing more
    NOW = 2  # end the running commands, too


class StopSignals:
    """Collects the signals sent to this process, and wakes it through a descriptor.

    ``is_paused`` is true between SIGTSTP, which Ctrl-Z sends, and SIGCONT.
    """

    def __init__(self) -> None:
        """Install handlers for SIGTERM and SIGINT (the second one stops now) and others.

        A supervisor passes a request on by SIGUSR2 (graceful) or SIGUSR1 (now). These are counted
        apart: one SIGTERM sent to every process of a pool asks for a graceful stop, although each
        worker process then gets two signals. SIGHUP is graceful however often it comes: when a
        terminal is closed, the shell may send one as well.
        """
        self.level = Stop.NO
        self.is_paused = False
        self._terminations = 0
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_terminate)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._on_request)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not under nohup
            signal.signal(signal.SIGHUP, self._on_request)
        if signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, self._on_pause)
            signal.signal(signal.SIGCONT, self._on_pause)
        # Writing to the terminal from a background process group must not stop this process.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Some may be blocked: a supervisor blocks them while it forks.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    @property
    def should_stop(self) -> bool:
        """Return whether no more jobs are to be claimed."""
        return self.level > Stop.NO

    def request(self, level: int) -> None:
        """Raise the level, if it is lower."""
        self.level = max(self.level, Stop(level))

    def wake_on_child_exit(self) -> None:
        """Wake this process when a child ends, too."""
        # The descriptor becomes readable only for signals that have a handler.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._terminations += 1
        self.request(min(self._terminations, Stop.NOW))

    def _on_request(self, number: int, _frame: FrameType | None) -> None:
        self.request(Stop.NOW if number == signal.SIGUSR1 else Stop.GRACEFUL)

    def _on_pause(self, number: int, _frame: FrameType | None) -> None:
        self.is_paused = number == signal.SIGTSTP

    def stop_process(self) -> None:
        """Stop this process as SIGTSTP does by default; return when it is continued."""
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.is_paused = False  # the kernel does not stop a process that nobody could continue

    def wake(self) -> None:
        """Wake this process from its wait; may be called in any thread."""
        with suppress(BlockingIOError):  # the pipe is full: it is about to wake
            os.write(self._write_fd, b"\0")

    def drain(self) -> None:
        """Empty the pipe that wakes this process."""
        with suppress(BlockingIOError):
            while os.read(self.fd, 512):
                pass
