"""One command that runs once, in a session of its own.

Source: posix_spawn(3) and pidfd_open(2). Spawning costs a tenth less than subprocess, and half as
much as fork and exec; the kernel reports the end of a pidfd without the polling of Popen.wait.
"""

import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from queuectl import procgroup
from queuectl.job import MAX_COMMAND_BYTES, Outcome
from queuectl.worker.loop import Loop

SHELL = "/bin/sh"
_NOT_FOUND = 127
# Python, nohup and shells that start a job in the background ignore some, and a command would
# inherit that. All are listed: for each one that is not, the C library asks the kernel first.
_DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
# What a machine runs out of for a while.
_SCARCE = frozenset((
    errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
))  # fmt: skip
# The errors of a directory that is missing, or not for this user. All others, like those of a disk
# or a server that does not answer, are not the fault of the job.
_NO_DIRECTORY = frozenset((
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG,
))  # fmt: skip
# For a command and its environment, with the usual limit of 8 MiB for the stack.
_USUAL_ARGUMENT_BYTES = 2 * 1024 * 1024


def is_scarcity(error: OSError) -> bool:
    """Return whether an error means that the machine lacks something for now."""
    return error.errno in _SCARCE


class Obstacle(OSError):
    """A reason why a command cannot be started that is not the fault of its job.

    ``is_general`` if no other command could be started either.
    """

    def __init__(self, error: OSError, *, is_general: bool) -> None:
        text = error.strerror
        if error.errno == errno.EBADF:  # the limit is lower than the number of the lock
            limit = os.sysconf("SC_OPEN_MAX")
            text = f"{text} (the limit of descriptors is {limit}: see ulimit -n)"
        elif error.errno == errno.E2BIG:
            text = f"{text} (the limit is {os.sysconf('SC_ARG_MAX')} bytes: see ulimit -s)"
        super().__init__(error.errno, text, error.filename)
        self.is_general = is_general


class Result(NamedTuple):
    """How an attempt ended. Units: seconds on the monotonic clock."""

    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    duration_seconds: float = 0.0


class Command:
    """A shell command that runs once, as the leader of a session and a process group."""

    def __init__(
        self,
        command: str,
        *,
        cwd: str,
        env: Mapping[bytes, bytes],
        own_env: Mapping[str, str],
        output_fd: int,
        pass_fds: Sequence[tuple[int, int]],
    ) -> None:
        """Prepare a command whose output goes to ``output_fd``, and whose input is our own.

        ``own_env`` is the part of ``env`` that its job adds; ``pass_fds`` are pairs of a descriptor
        and its number in the command.
        """
        # After --, or a command that begins with - or + would be options of the shell.
        self._arguments = [b"sh", b"-c", b"--", command.encode("utf-8", "surrogateescape")]
        self.cwd = cwd.encode("utf-8", "surrogateescape")
        self._env = env
        self._own_env = own_env
        self._actions = [(os.POSIX_SPAWN_DUP2, output_fd, 1), (os.POSIX_SPAWN_DUP2, output_fd, 2)]
        self._actions += [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in pass_fds]
        self.pid = 0
        self._started_at = 0.0
        self._status: int | None = None
        self._ended_after: float | None = None
        self._pidfd = -1

    def start(self) -> None:
        """Start the command, and change to its directory.

        Raises: Obstacle; any other OSError is the fault of the job.
        """
        try:
            os.chdir(self.cwd)
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                raise
            raise Obstacle(error, is_general=False) from error
        self._started_at = time.monotonic()
        try:
            self.pid = os.posix_spawn(
                SHELL,
                self._arguments,
                self._env,
                file_actions=self._actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT_SIGNALS,
            )
        except OSError as error:
            is_large = error.errno == errno.E2BIG
            if is_large and self._is_too_large():
                raise
            raise Obstacle(error, is_general=not is_large) from error

    def _is_too_large(self) -> bool:
        """Return whether the job alone, on a stack of the usual size, is too large to start.

        Source: execve(2), limits on size of arguments and environment.
        """
        own = [f"{name}={value}" for name, value in self._own_env.items()]
        texts = [self._arguments[-1], *(each.encode("utf-8", "surrogateescape") for each in own)]
        sizes = [len(text) + 1 for text in texts]
        limit = max(os.sysconf("SC_ARG_MAX"), _USUAL_ARGUMENT_BYTES)
        return max(sizes) > MAX_COMMAND_BYTES + 1 or sum(sizes) + 8 * len(sizes) > limit

    def watch(self) -> None:
        """Open a descriptor that becomes readable when the command ends, if possible."""
        # The command runs already. Whatever prevents a pidfd (the system, an old kernel, a sandbox,
        # too many open files) must not look like a command that was not started.
        with suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(self.pid)

    @property
    def needs_sigchld(self) -> bool:
        """Return whether only SIGCHLD can end a wait when the command ends."""
        return self._pidfd < 0

    def elapsed_seconds(self) -> float:
        """Return how long the command has been running."""
        return time.monotonic() - self._started_at

    async def wait(self, timeout_seconds: float | None, loop: Loop) -> bool:
        """Wait for the end of the command; return False if it still runs.

        That is so when the time is up, or a waker of the loop was called.
        """
        # Without a pidfd the command may have ended before the wait, and will wake nobody.
        if (self._pidfd < 0 or self._status is not None) and self._reap():
            return True
        await loop.wait(() if self._pidfd < 0 else (self._pidfd,), timeout_seconds)
        return self._reap()

    def _reap(self) -> bool:
        if self._status is not None:
            return True
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        self._note_end()
        self._status = status
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return True

    def _note_end(self) -> None:
        if self._ended_after is None:
            self._ended_after = self.elapsed_seconds()

    def _has_ended(self) -> bool:
        """Return whether the leader has ended, without reaping it."""
        if self._status is None:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.pid, options) is None:
                return False
        self._note_end()
        return True

    async def end(self, grace_seconds: float, loop: Loop) -> None:
        """End the process group: SIGTERM, the grace, SIGKILL; return when it is gone.

        The leader is not reaped before: until then no other group can get its number.
        """
        for max_seconds in procgroup.end_by_signals(
            self._signal_group, self._group_lives, grace_seconds
        ):
            if self._pidfd >= 0 and not self._has_ended():
                await loop.wait((self._pidfd,), max_seconds)
            else:  # other processes of the group have outlived the leader
                await loop.wait((), min(max_seconds, procgroup.CHECK_SECONDS))
        while self._status is None:
            # The kernel ends it as soon as it leaves an uninterruptible wait.
            await self.wait(procgroup.CHECK_SECONDS if self._pidfd < 0 else None, loop)

    def _signal_group(self, number: int) -> bool:
        return procgroup.signal_group(self.pid, number)

    def _group_lives(self) -> bool:
        lives = procgroup.has_living(self.pid)
        if lives is None:  # no /proc: a group is gone when its leader is reaped and no signal comes
            self._reap()
            return self._signal_group(0)
        return lives

    def result(self) -> Result:
        """Return how the command ended; it has ended."""
        assert self._status is not None, "the command still runs"
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            outcome = Outcome.SIGNALLED
        elif code == 0:
            outcome = Outcome.SUCCEEDED
        else:
            outcome = Outcome.NOT_FOUND if code == _NOT_FOUND else Outcome.FAILED
        return Result(
            outcome=outcome,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            duration_seconds=round(self._ended_after or 0.0, 6),
        )
