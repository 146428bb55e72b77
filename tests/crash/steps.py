"""Stop a program, or refuse what it asks, at any one of its calls of the file system."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import filelock  # noqa: F401  (imported before a fork, not in it)

from queuectl.store import files

CRASHED = 9

# What changes files. Between two of these nothing on the disk can be told apart, and so a crash
# after one is a crash before the next.
CHANGES = (
    "write", "pwrite", "ftruncate", "fsync", "rename", "replace", "link", "unlink", "mkdir",
    "rmdir", "chmod", "fchmod", "utime",
)  # fmt: skip
LOOKS = ("stat", "scandir", "pread", "lstat")
_EXTRA = {"move_new": files, "exchange": files, "sync_file_system": files}


def _creates(name: str, args: tuple[Any, ...]) -> bool:
    return name == "open" and len(args) > 1 and bool(args[1] & os.O_CREAT)


def changes(name: str, args: tuple[Any, ...]) -> bool:
    """Tell whether a call changes files."""
    return name in CHANGES or name in _EXTRA or _creates(name, args)


def anything(name: str, args: tuple[Any, ...]) -> bool:
    """Tell that a call may fail, as any may on a bad disk."""
    return True


def takes_space(name: str, args: tuple[Any, ...]) -> bool:
    """Tell whether a call may fail on a full disk."""
    return name not in ("unlink", "rmdir", "chmod", "fchmod") and changes(name, args)


def takes_descriptor(name: str, args: tuple[Any, ...]) -> bool:
    """Tell whether a call may fail where no descriptor is free."""
    return name in ("open", "scandir")


Which = Callable[[str, tuple[Any, ...]], bool]
Meet = Callable[[int, str, Callable[..., Any], tuple[Any, ...]], Any]


@contextmanager
def watched(which: Which, meet: Meet) -> Iterator[None]:
    """Let ``meet`` see each call, with its number from 1, that ``which`` chooses."""
    number = 0
    places: list[tuple[Any, str, Any]] = []

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal number
            if which(name, args):
                number += 1
                meet(number, name, lambda *other: original(*other, **kwargs), args)
            return original(*args, **kwargs)

        places.append((module, name, original))
        setattr(module, name, call)

    for name in ("open", *CHANGES, *LOOKS):
        watch(os, name)
    for name, module in _EXTRA.items():
        watch(module, name)
    try:
        yield
    finally:
        for module, name, original in places:
            setattr(module, name, original)


def crash_at(step: int, act: Callable[[], None], begin: Callable[[], None], *, torn: bool) -> bool:
    """Let another process begin, and act until its given step; tell whether it came to the end.

    It dies as by ``kill -9``: nothing is cleaned up, and the kernel frees its locks. With ``torn``
    half of what it writes at that step is written before.
    """

    def meet(number: int, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if number == step:
            if torn and name in ("write", "pwrite"):
                original(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            os._exit(CRASHED)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside xdist's threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            begin()
            with watched(changes, meet):
                act()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
            raise
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, CRASHED), f"the process that was to crash ended with {code}"
    return code == 0


@contextmanager
def refused(step: int, which: Which, number: int, *, lasting: bool) -> Iterator[list[str]]:
    """Refuse one call, and with ``lasting`` those that follow, with an error of the system.

    What was refused is put into the list.
    """
    names: list[str] = []

    def meet(count: int, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if count == step or (lasting and count > step):
            names.append(name)
            raise OSError(number, os.strerror(number), "injected")

    with watched(which, meet):
        yield names


def open_descriptors() -> set[str]:
    """Return the numbers of this process's open descriptors."""
    if sys.platform == "linux":
        fds = os.listdir("/proc/self/fd")
        return {fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")}
    return set()
