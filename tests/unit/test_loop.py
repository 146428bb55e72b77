"""Several coroutines in one thread: each waits, and others go on."""

import os
import time
from collections.abc import Iterator

import pytest

from queuectl.worker.loop import Loop

SHORT, LONG = 0.001, 60.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: what reads, and what writes."""
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


def test_each_goes_on_when_its_descriptor_is_readable(pipe: tuple[int, int]) -> None:
    """What one writes wakes the other, however long that would wait."""
    loop, told = Loop(), []
    read_fd, write_fd = pipe

    async def reads() -> None:
        await loop.wait((read_fd,), LONG)
        told.append(os.read(read_fd, 9))

    async def writes() -> None:
        await loop.wait((), SHORT)
        os.write(write_fd, b"hello")
        told.append(b"written")

    loop.run([reads(), writes()])
    assert told == [b"written", b"hello"]


def test_the_one_whose_time_is_out_first_goes_on_first() -> None:
    """Whatever the order in which they began to wait."""
    loop, told = Loop(), []

    async def sleeps(seconds: float) -> None:
        await loop.wait((), seconds)
        told.append(seconds)

    loop.run([sleeps(0.03), sleeps(0.001), sleeps(0.015)])
    assert told == [0.001, 0.015, 0.03]


def test_all_that_wait_for_one_descriptor_go_on(pipe: tuple[int, int]) -> None:
    """And the descriptor may be closed when none waits for it any more."""
    loop, told = Loop(), []
    read_fd = os.dup(pipe[0])

    async def waits(name: str) -> None:
        await loop.wait((read_fd,), LONG)
        told.append(name)

    os.write(pipe[1], b"x")
    loop.run([waits("a"), waits("b")])
    assert told == ["a", "b"]
    os.close(read_fd)
    loop.run([waits_not(loop)])


async def waits_not(loop: Loop) -> None:
    """Wait for nothing."""
    await loop.yield_now()


def test_a_waker_wakes_all_and_is_read_once(pipe: tuple[int, int]) -> None:
    """Whatever they wait for; until it is forgotten."""
    loop, told = Loop(), []
    read_fd, write_fd = pipe
    loop.add_waker(read_fd, lambda: told.append(os.read(read_fd, 9)))

    async def waits(name: str) -> None:
        await loop.wait((), LONG)
        told.append(name.encode())

    os.write(write_fd, b"wake")
    loop.run([waits("a"), waits("b")])
    assert told == [b"wake", b"a", b"b"]
    loop.remove_waker(read_fd)
    os.write(write_fd, b"again")
    loop.run([waits_not(loop)])
    assert told == [b"wake", b"a", b"b"]


def test_those_that_are_told_go_on_though_nothing_is_there_to_read(pipe: tuple[int, int]) -> None:
    """One has read what the descriptor had, and tells the others that wait for it."""
    loop, told = Loop(), []
    read_fd, write_fd = pipe

    async def waits() -> None:
        await loop.wait((read_fd,), LONG)
        told.append("told")

    async def reads_before() -> None:
        await loop.wait((), SHORT)
        os.write(write_fd, b"x")
        assert os.read(read_fd, 9) == b"x"
        loop.notify(read_fd)
        loop.notify(write_fd)  # for which nobody waits

    loop.run([waits(), reads_before()])
    assert told == ["told"]


def test_others_that_are_ready_go_first(pipe: tuple[int, int]) -> None:
    """Without waiting for those that are not."""
    loop, told = Loop(), []

    async def in_two_steps(name: str) -> None:
        told.append(f"{name} 1")
        await loop.yield_to_ready()
        told.append(f"{name} 2")

    loop.run([in_two_steps("a"), in_two_steps("b"), in_two_steps("c")])
    assert told == ["a 1", "b 1", "c 1", "a 2", "b 2", "c 2"]


def test_it_is_known_whether_another_could_go_on(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it for a descriptor, or because its time is out."""
    loop, told = Loop(), []
    read_fd, write_fd = pipe
    now = [time.monotonic()]
    monkeypatch.setattr("queuectl.worker.loop.time.monotonic", lambda: now[0])

    async def waits() -> None:
        await loop.wait((read_fd,), LONG)

    async def sleeps() -> None:
        await loop.wait((), SHORT)

    async def asks() -> None:
        told.append(loop.has_ready())
        os.write(write_fd, b"x")
        told.append(loop.has_ready())

    async def asks_late() -> None:
        told.append(loop.has_ready())
        now[0] += SHORT
        told.append(loop.has_ready())

    loop.run([waits(), asks()])
    loop = Loop()
    loop.run([sleeps(), asks_late()])
    assert told == [False, True, False, True]


def test_what_one_raises_ends_all() -> None:
    """A bug is not hidden by those that go on."""
    loop = Loop()

    async def waits() -> None:
        await loop.wait((), LONG)

    async def fails() -> None:
        raise RuntimeError("broken")

    task = waits()
    with pytest.raises(RuntimeError, match="broken"):
        loop.run([task, fails()])
    task.close()


def test_one_that_is_alone_waits_as_all_do(pipe: tuple[int, int]) -> None:
    """For a descriptor, for its time, and for what wakes all; then its descriptors are free."""
    loop, told = Loop(), []
    read_fd, write_fd = pipe
    waker, wake = os.pipe()
    loop.add_waker(waker, lambda: told.append(os.read(waker, 9)))

    async def waits() -> None:
        os.write(write_fd, b"x")
        await loop.wait((read_fd,), LONG)
        told.append(os.read(read_fd, 9))
        await loop.wait((read_fd,), SHORT)
        told.append(b"late")
        os.write(wake, b"woken")
        await loop.wait((read_fd,), LONG)
        await loop.yield_now()
        await loop.yield_to_ready()

    loop.run([waits()])
    assert told == [b"x", b"late", b"woken"]
    assert not loop.has_ready()
    os.close(waker)
    os.close(wake)
