"""Run one command once, in a session of its own, and wait for its end in the kernel.

Source: posix_spawn(3) and pidfd_open(2). Spawning costs a tenth less than subprocess and half of
fork and exec; a pidfd is waited for without the polling of Popen.wait.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from queuectl.job import MAX_COMMAND_BYTES, Outcome
from queuectl.loop import Loop

SHELL = "/bin/sh"
_NOT_FOUND = 127
# Python, nohup and shells that start a job in the background ignore some, and a command would
# inherit that. All are named: of each that is not, the C library asks the kernel first.
_DEFAULT_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
# What a machine runs out of for a while; none of it is the job's fault.
_SCARCE = frozenset((
    errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
))  # fmt: skip
# What a directory is refused with that is not there, or not for this user. All else, as of a disk
# or a server that does not answer, is no fault of the job that is to run there.
_NO_DIRECTORY = frozenset((
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG,
))  # fmt: skip
# What a command and its environment may take where the stack may grow to 8 MiB, as is usual.
_USUAL_ARGUMENT_BYTES = 2 * 1024 * 1024
_COERCED_LOCALES = (b"C.UTF-8", b"C.utf8", b"UTF-8")
_GROUP_CHECK_SECONDS = 0.02
_GROUP_KILL_SECONDS = 5.0


def is_scarcity(error: OSError) -> bool:
    """Tell whether an error means that the machine lacks something now, and may not in a second."""
    return error.errno in _SCARCE


class Obstacle(OSError):
    """What keeps a command from being started and is no fault of its job.

    ``is_general`` where no other command could be started either.
    """

    is_general = True


def _obstacle(error: OSError, *, is_general: bool) -> Obstacle:
    text = error.strerror
    if error.errno == errno.EBADF:  # the limit is too low for the number of the lock
        text = f"{text} (the limit of descriptors is {os.sysconf('SC_OPEN_MAX')}: see ulimit -n)"
    elif error.errno == errno.E2BIG:
        text = f"{text} (the limit is {os.sysconf('SC_ARG_MAX')} bytes: see ulimit -s)"
    obstacle = Obstacle(error.errno, text, error.filename)
    obstacle.is_general = is_general
    return obstacle


def is_too_large(command: str, env: Mapping[str, str]) -> bool:
    """Return whether a command, with what its job adds to the environment, is too large to start.

    That is, by itself, and not for what the worker was started with or how small its stack is.
    Source: execve(2), limits on size of arguments and environment.
    """
    texts = [command, *(f"{name}={value}" for name, value in env.items())]
    sizes = [len(text.encode("utf-8", "surrogateescape")) + 1 for text in texts]
    most = max(os.sysconf("SC_ARG_MAX"), _USUAL_ARGUMENT_BYTES)
    return max(sizes) > MAX_COMMAND_BYTES + 1 or sum(sizes) + 8 * len(sizes) > most


def environment_as_given() -> dict[bytes, bytes]:
    """Return the environment that this process was started with, where Python has changed it.

    In the C locale Python sets LC_CTYPE for itself and for all that it starts; a command is not to
    know that Python was there. Source: PEP 538; environ in proc(5), Linux only.
    """
    env = dict(os.environb)
    if env.get(b"LC_CTYPE") in _COERCED_LOCALES:
        with suppress(OSError), open("/proc/self/environ", "rb") as file:
            given = dict(each.partition(b"=")[::2] for each in file.read().split(b"\0"))
            del env[b"LC_CTYPE"]
            if b"LC_CTYPE" in given:
                env[b"LC_CTYPE"] = given[b"LC_CTYPE"]
    return env


class Result(NamedTuple):
    """Tell how a command ended. Units: seconds on the monotonic clock."""

    outcome: Outcome
    exit_code: int | None
    signal: int | None
    duration_seconds: float


class Command:
    """Be one command that runs once; its process group ends with it where it is told to end."""

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
        """Take what is to be run through the shell; its output goes to ``output_fd``.

        It reads what this process has as descriptor 0. ``own_env`` is what of ``env`` is its own;
        ``pass_fds`` are (descriptor, its number in the command).
        """
        # After --, or a command that begins with - or + would be options of the shell.
        self._arguments = [b"sh", b"-c", b"--", command.encode("utf-8", "surrogateescape")]
        self.cwd = cwd.encode("utf-8", "surrogateescape")
        self._env = env
        self._own_env = own_env
        self._command = command
        self._actions = [(os.POSIX_SPAWN_DUP2, output_fd, 1), (os.POSIX_SPAWN_DUP2, output_fd, 2)]
        self._actions += [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in pass_fds]
        self.pid = 0
        self._started = 0.0
        self._status: int | None = None
        self._ended_after: float | None = None
        self._pidfd = -1

    def start(self) -> None:
        """Start it; this process changes to its directory.

        Raises: Obstacle; any other OSError is the fault of what was given.
        """
        try:
            os.chdir(self.cwd)
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                raise
            raise _obstacle(error, is_general=False) from error
        self._started = time.monotonic()
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
            if is_large and is_too_large(self._command, self._own_env):
                raise
            raise _obstacle(error, is_general=not is_large) from error

    def watch(self) -> None:
        """Let the kernel tell when it ends, where it can."""
        # The command runs already, so whatever is in the way of a pidfd (the system, an old kernel,
        # a sandbox, too many open files) must not look like a command that was not started.
        with suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(self.pid)

    @property
    def wakes(self) -> bool:
        """Return whether the kernel ends a wait when the command ends, without SIGCHLD."""
        return self._pidfd >= 0

    def elapsed_seconds(self) -> float:
        """Return how long the command has been running."""
        return time.monotonic() - self._started

    async def wait(self, timeout_seconds: float | None, loop: Loop) -> bool:
        """Wait until the command ended (True), the loop wakes all or time is up (False).

        Where it does not wake by itself, the caller makes SIGCHLD wake the loop.
        """
        # Without a pidfd the end may have come before the wait, and woken nobody.
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
        """Return whether the leader has ended, without taking its number from it."""
        if self._status is None:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.pid, options) is None:
                return False
        self._note_end()
        return True

    async def end(self, grace_seconds: float, loop: Loop) -> None:
        """End the whole process group: SIGTERM, the grace, SIGKILL; return when it is gone.

        A stopped process is continued, so that it can take the SIGTERM. The leader is not reaped
        before the group is gone: until then nobody else can get its number, and be killed for it.
        """
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)
        await self._wait_for_group(grace_seconds, loop)
        if self._group_lives():
            self._signal_group(signal.SIGKILL)
            await self._wait_for_group(_GROUP_KILL_SECONDS, loop)
        while self._status is None:
            # The kernel ends it as soon as it leaves an uninterruptible wait.
            await self.wait(_GROUP_CHECK_SECONDS if self._pidfd < 0 else None, loop)

    async def _wait_for_group(self, most_seconds: float, loop: Loop) -> None:
        """Wait for the leader in the kernel, and for those that outlive it by looking."""
        deadline = time.monotonic() + most_seconds
        while self._group_lives() and (left := deadline - time.monotonic()) > 0:
            if self._pidfd >= 0 and not self._has_ended():
                await loop.wait((self._pidfd,), left)
            else:
                await loop.wait((), min(left, _GROUP_CHECK_SECONDS))

    def _signal_group(self, number: int) -> bool:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # it runs as somebody else now (setuid): it lives, and we may not end it
        return True

    def _group_lives(self) -> bool:
        lives = _has_living(self.pid)
        if lives is None:  # only the leader's end tells, and a signal that finds nobody
            self._reap()
            return self._signal_group(0)
        return lives

    def result(self) -> Result:
        """Return how the command ended, as waitpid tells it; it has ended."""
        assert self._status is not None, "the command runs still"
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


def _has_living(group: int) -> bool | None:
    """Return whether a process group has more than zombies; None where the system does not say.

    In a container whose first process reaps nothing they stay for ever, and nothing ends them.
    Source: proc(5), which elsewhere than on Linux is not there or says other things.
    """
    if sys.platform != "linux" or not os.path.exists("/proc/self/stat"):
        return None
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, _, its_group = file.read().rpartition(b")")[2].split()[:3]
                if int(its_group) == group and state not in (b"Z", b"X"):
                    return True
    return False
