"""What is told never waits for who reads it."""

import fcntl
import os
import pty
import socket
import termios
from collections.abc import Iterator

import pytest

from queuectl.nonblocking import NonBlockingWriter

LINE = b"x" * 127 + b"\n"  # many of these fill a pipe to its last byte


def say(count: int) -> bytes:
    """Say how many lines were dropped."""
    return f"{count} dropped\n".encode()


def read_all(fd: int) -> bytes:
    """Return what can be read now."""
    data = b""
    os.set_blocking(fd, False)
    try:
        while more := os.read(fd, 65536):
            data += more
    except BlockingIOError:
        pass
    return data


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe."""
    fds = os.pipe()
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take /proc away."""
    opened = os.open

    def refuse(path: str, *arguments: int) -> int:
        if path.startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)


def fill(writer: NonBlockingWriter) -> int:
    """Write until lines are dropped; return how many were written."""
    written = 0
    while not writer.dropped:
        writer.write(LINE, say)
        written += 1
    return written - 1


def check(writer: NonBlockingWriter, read_fd: int) -> None:
    """Check that an writer drops what does not fit, and says so as soon as it is read."""
    written = fill(writer)
    writer.write(LINE * 2, say)
    assert writer.dropped == 3
    assert not writer.report_dropped(say)
    said = read_all(read_fd).replace(b"\r", b"")
    whole, _, part = said.rpartition(b"\n")
    assert whole + b"\n" == LINE * written
    assert LINE.startswith(part)
    assert writer.report_dropped(say)
    writer.write(LINE, say)
    assert read_all(read_fd).replace(b"\r", b"").lstrip(b"\n") == b"3 dropped\n" + LINE
    assert writer.dropped == 0
    writer.close()


def test_lines_that_a_pipe_does_not_take_are_dropped_and_counted(pipe: tuple[int, int]) -> None:
    """The descriptor itself stays as it is: others share it."""
    check(NonBlockingWriter(pipe[1]), pipe[0])
    assert os.get_blocking(pipe[1])


@pytest.mark.usefixtures("no_proc")
def test_without_proc_a_pipe_is_asked_before_each_write(pipe: tuple[int, int]) -> None:
    """It is told by poll then that it takes a line."""
    check(NonBlockingWriter(pipe[1]), pipe[0])


def test_lines_that_a_socket_does_not_take_are_dropped_and_counted() -> None:
    """Under systemd stderr is one."""
    reader, other = socket.socketpair()
    with reader, other:
        writer = NonBlockingWriter(other.fileno())
        written = fill(writer)
        reader.setblocking(False)
        said = b""
        while len(said) < written * len(LINE):
            said += reader.recv(65536)
        assert writer.report_dropped(say)
        assert other.getblocking()
        writer.close()


@pytest.mark.parametrize("has_proc", [True, False])
def test_terminal_that_is_stopped_by_ctrl_s_holds_up_nothing(
    request: pytest.FixtureRequest, *, has_proc: bool
) -> None:
    """What was told meanwhile is counted, and that is shown after Ctrl-Q."""
    if not has_proc:
        request.getfixturevalue("no_proc")
    master, terminal = pty.openpty()
    writer = NonBlockingWriter(terminal)
    writer.write(LINE, say)
    termios.tcflow(terminal, termios.TCOOFF)
    writer.write(LINE, say)
    assert writer.dropped == 1
    termios.tcflow(terminal, termios.TCOON)
    assert writer.report_dropped(say)
    assert read_all(master).replace(b"\r", b"") == LINE + b"1 dropped\n"
    writer.close()
    os.close(master)
    os.close(terminal)


def test_a_long_traceback_that_is_cut_off_does_not_run_into_the_next_line(
    pipe: tuple[int, int],
) -> None:
    """What follows begins on a line of its own."""
    writer = NonBlockingWriter(pipe[1])
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    writer.write(b"y" * 5000 + b"\n", say)
    assert writer.dropped == 1
    assert read_all(pipe[0]) == b"y" * 4096
    assert writer.report_dropped(say)
    assert read_all(pipe[0]) == b"\n1 dropped\n"
    writer.close()


def test_nothing_is_counted_where_nobody_is_left_to_be_told() -> None:
    """A closed terminal is never opened again."""
    read_fd, write_fd = os.pipe()
    writer = NonBlockingWriter(write_fd)
    os.close(read_fd)
    writer.write(LINE, say)
    assert writer.dropped == 0
    writer.close()
    os.close(write_fd)
