"""Record what a program does to files, and list what a power failure may leave of it.

The model is harsher than any journalling file system: what is not made durable may be there or
missing, each change for itself and in any order. A rename or an exchange is one change. It is
durable when the directory that the name came into is synced (both, for an exchange); what a file
holds is durable when the file is synced.
"""

import os
import random
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from queuectl.store import files
from queuectl.store.layout import DIRECTORIES

ROOT = 0
_ALL_SUBSETS_UP_TO = 8
_SAMPLES = 50
# Where a sync is called for by these, it is their caller that wants it.
_HELPERS = (
    "write_synced", "written", "replace", "record", "write_root_file", "sync_directory",
    "sync_entry", "sync_each", "_sync_whole", "make_durable", "move_back",
)  # fmt: skip

Site = tuple[str, int, str, str]  # module, line, the function that wanted it, and what was synced
Names = dict[tuple[int, str], int]
Tree = tuple[tuple[str, bytes | None], ...]  # each path, with what is in the file


class Change(NamedTuple):
    """Be names that change in one step: each (directory, name) with its new inode, or None."""

    names: tuple[tuple[tuple[int, str], int | None], ...]
    durable_in: frozenset[int]


class Write(NamedTuple):
    """Be a file that holds something else from now on."""

    inode: int
    data: bytes


class Sync(NamedTuple):
    """Be a file or directory that is made durable; all of them without an inode."""

    inode: int | None
    site: Site


class Point(NamedTuple):
    """Be a moment: what was promised to somebody until now, as a test wants to check it."""

    promised: Any


Event = Change | Write | Sync | Point


class Disk:
    """Record into ``events`` what is done in a directory, from an empty one on."""

    def __init__(self, base: Path) -> None:
        """Take the directory; it is made here."""
        base.mkdir()
        self._base = str(base)
        self.events: list[Event] = []
        self._now: Names = {}
        self._directories = {ROOT: ""}
        self._inodes = {os.stat(base).st_ino: ROOT}  # numbers are used again, these are not
        self._next = ROOT + 1

    def point(self, promised: Any) -> None:
        """Note what is promised from now on."""
        self.events.append(Point(promised))

    def sync_by_hand(self, fd: int) -> None:
        """Note that somebody else has made an open file or directory durable."""
        self.events.append(Sync(self._inodes[os.fstat(fd).st_ino], ("", 0, "", "")))

    @contextmanager
    def recorded(self, *, can_sync_all: bool = True) -> Iterator[None]:
        """Record what this process does in the directory."""
        replaced: dict[tuple[Any, str], Callable[..., Any]] = {
            (os, "open"): self._open,
            (os, "pwrite"): self._written,
            (os, "write"): self._written,
            (os, "ftruncate"): self._written,
            (os, "fsync"): self._fsync,
            (os, "rename"): self._rename,
            (os, "unlink"): self._unlink,
            (os, "rmdir"): self._unlink,
            (os, "mkdir"): self._mkdir,
            (os, "replace"): self._unknown,
            (os, "link"): self._unknown,
            (os, "truncate"): self._unknown,
            (os, "symlink"): self._unknown,
            (files, "move_new"): self._move_new,
            (files, "exchange"): self._exchange,
            (files, "sync_file_system"): self._sync_all if can_sync_all else _cannot,
        }
        originals = {(module, name): getattr(module, name) for module, name in replaced}
        for (module, name), record in replaced.items():
            setattr(module, name, _wrapped(record, originals[module, name]))
        try:
            yield
        finally:
            for (module, name), original in originals.items():
                setattr(module, name, original)

    # --- what is recorded ---

    def _open(self, original: Any, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        key = self._key(path, kwargs.get("dir_fd"))
        fd: int = original(path, flags, *args, **kwargs)
        if flags & os.O_CREAT and key is not None and key not in self._now:
            self._made(key, os.fstat(fd).st_ino)
        if flags & os.O_TRUNC and stat.S_ISREG(os.fstat(fd).st_mode):
            self._note_data(fd)
        return fd

    def _mkdir(self, original: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        key = self._key(path, kwargs.get("dir_fd"))
        original(path, *args, **kwargs)
        assert key is not None, path
        number = os.stat(path, dir_fd=kwargs.get("dir_fd")).st_ino
        self._directories[self._made(key, number)] = key[1]

    def _made(self, key: tuple[int, str], number: int) -> int:
        inode = self._inodes[number] = self._next
        self._next += 1
        self._change({key: inode}, key[0])
        return inode

    def _change(self, names: Mapping[tuple[int, str], int | None], *durable_in: int) -> None:
        self.events.append(Change(tuple(names.items()), frozenset(durable_in)))
        for key, inode in names.items():
            if inode is None:
                self._now.pop(key, None)
            else:
                self._now[key] = inode

    def _written(self, original: Any, fd: int, *args: Any) -> Any:
        result = original(fd, *args)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            self._note_data(fd)
        return result

    def _note_data(self, fd: int) -> None:
        inode = self._inodes.get(os.fstat(fd).st_ino)
        if inode is not None:
            self.events.append(Write(inode, Path(f"/proc/self/fd/{fd}").read_bytes()))

    def _fsync(self, original: Any, fd: int) -> None:
        inode = self._inodes.get(os.fstat(fd).st_ino)  # the disk itself is not waited for
        if inode is not None:
            self.events.append(Sync(inode, _site(self._kind(inode))))

    def _sync_all(self, original: Any, fd: int) -> bool:
        self.events.append(Sync(None, _site("all")))
        return True

    def _kind(self, inode: int) -> str:
        name = self._directories.get(inode, "a file")
        return name if name in (*DIRECTORIES, "a file") else "another directory"

    def _rename(self, original: Any, source: Any, target: Any, **kwargs: Any) -> None:
        old = self._key(source, kwargs.get("src_dir_fd"))
        new = self._key(target, kwargs.get("dst_dir_fd"))
        original(source, target, **kwargs)
        assert old is not None, source
        assert new is not None, target
        self._change({old: None, new: self._now[old]}, new[0])

    def _move_new(self, original: Any, first_fd: int, first: str, fd: int, second: str) -> None:
        def move(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            original(src_dir_fd, source, dst_dir_fd, target)

        self._rename(move, first, second, src_dir_fd=first_fd, dst_dir_fd=fd)

    def _exchange(self, original: Any, first_fd: int, first: str, fd: int, second: str) -> None:
        one, other = self._key(first, first_fd), self._key(second, fd)
        original(first_fd, first, fd, second)
        assert one is not None, first
        assert other is not None, second
        self._change({one: self._now[other], other: self._now[one]}, one[0], other[0])

    def _unlink(self, original: Any, path: Any, **kwargs: Any) -> None:
        key = self._key(path, kwargs.get("dir_fd"))
        original(path, **kwargs)
        assert key is not None, path
        self._change({key: None}, key[0])

    def _unknown(self, original: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"{original} is not recorded: teach it to this module")

    def _key(self, path: Any, dir_fd: int | None) -> tuple[int, str] | None:
        """Return directory and name that a path stands for, None where it is not on this disk."""
        path = os.fspath(path)
        if dir_fd is not None and not path.startswith("/"):
            directory = self._inodes.get(os.fstat(dir_fd).st_ino)
        elif path.startswith(self._base + "/"):
            directory, path = ROOT, path.removeprefix(self._base + "/")
        else:
            return None
        *parents, name = path.split("/")
        for parent in parents:
            if directory is None:
                return None
            directory = self._now.get((directory, parent))
        return None if directory is None or name == "." else (directory, name)

    # --- what a power failure leaves ---

    def states(self, without: Site | None = None) -> Iterator[tuple[Tree, Any]]:
        """Yield each tree that may be found, once, with what was promised before.

        Those before each sync and each promise are all there are: where a change may be missing,
        it may as well not have been made. ``without`` leaves out the syncs of one place.
        """
        chance = random.Random(20261125)
        seen = set()
        durable: Names = {}
        changes: list[Change] = []
        synced: dict[int, bytes] = {}
        dirty: dict[int, bytes] = {}
        promised: Any = None
        for event in (*self.events, Point(None)):
            if isinstance(event, Change):
                changes.append(event)
            elif isinstance(event, Write):
                dirty[event.inode] = event.data
            elif not (isinstance(event, Sync) and event.site == without):
                for names in _possible_names(durable, changes, chance):
                    for tree in self._trees(names, synced, dirty):
                        if (tree, repr(promised)) not in seen:
                            seen.add((tree, repr(promised)))
                            yield tree, promised
                if isinstance(event, Point):
                    promised = event.promised
                elif event.inode is None:
                    durable = _applied(durable, changes)
                    changes = []
                    synced |= dirty
                    dirty = {}
                elif event.inode in dirty:
                    synced[event.inode] = dirty.pop(event.inode)
                else:
                    durable, changes = _synced_directory(durable, changes, event.inode)

    def sites(self) -> set[Site]:
        """Return each place in the program that made something durable."""
        return {event.site for event in self.events if isinstance(event, Sync)}

    def _trees(
        self, names: Names, synced: Mapping[int, bytes], dirty: Mapping[int, bytes]
    ) -> Iterator[Tree]:
        """Yield the trees of these names: what is not synced is new, old, or torn."""
        inside: dict[int, list[tuple[str, int]]] = {}
        for (directory, name), inode in names.items():
            inside.setdefault(directory, []).append((name, inode))
        paths: list[tuple[str, int]] = []
        todo = [("", ROOT)]
        while todo:
            path, directory = todo.pop()
            for name, inode in inside.get(directory, ()):
                paths.append((path + name, inode))
                if inode in self._directories:
                    todo.append((path + name + "/", inode))
        paths.sort()
        unsure = sorted({inode for _, inode in paths if inode in dirty})
        for choice in product(range(3), repeat=min(len(unsure), 3)):
            held = dict(synced)
            for inode, which in zip(unsure, chain(choice, [1] * len(unsure)), strict=False):
                old, new = synced.get(inode, b""), dirty[inode]
                half = len(new) // 2
                held[inode] = (new, old, new[:half] + old[half:])[which]
            yield tuple(
                (path, None if inode in self._directories else held.get(inode, b""))
                for path, inode in paths
            )


def _wrapped(record: Callable[..., Any], original: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: record(original, *args, **kwargs)


def _cannot(original: Any, fd: int) -> bool:
    return False


def _site(kind: str) -> Site:
    """Return where in the program a sync is called for, and by which function that is no helper."""
    frame = sys._getframe(1)
    while "queuectl/store/" not in frame.f_code.co_filename or frame.f_code.co_name in _HELPERS:
        assert frame.f_back is not None
        frame = frame.f_back
    return os.path.basename(frame.f_code.co_filename), frame.f_lineno, frame.f_code.co_name, kind


def _possible_names(
    durable: Names, changes: Sequence[Change], chance: random.Random
) -> Iterator[Names]:
    """Yield what names there may be: each change that is not durable is there, or is missing."""
    unsure = [number for number, change in enumerate(changes) if change.durable_in]
    if len(unsure) <= _ALL_SUBSETS_UP_TO:
        chosen = chain.from_iterable(combinations(unsure, size) for size in range(len(unsure) + 1))
    else:
        chosen = chain(
            ((), tuple(unsure)),
            ((each,) for each in unsure),
            (tuple(other for other in unsure if other != each) for each in unsure),
            (tuple(n for n in unsure if chance.random() < 0.5) for _ in range(_SAMPLES)),
        )
    for subset in chosen:
        there = set(subset)
        yield _applied(
            durable,
            [each for n, each in enumerate(changes) if n in there or not each.durable_in],
        )


def _applied(durable: Names, changes: Sequence[Change]) -> Names:
    names = dict(durable)
    for change in changes:
        for key, inode in change.names:
            if inode is None:
                names.pop(key, None)
            else:
                names[key] = inode
    return names


def _synced_directory(
    durable: Names, changes: Sequence[Change], directory: int
) -> tuple[Names, list[Change]]:
    """Note what came into a directory as durable; for an exchange, the other has to be synced, too.

    What is durable stays in the list as long as something older is not, since their order counts.
    """
    left = [each._replace(durable_in=each.durable_in - {directory}) for each in changes]
    while left and not left[0].durable_in:
        durable = _applied(durable, [left.pop(0)])
    return durable, left


@contextmanager
def quick() -> Iterator[None]:
    """Wait for no disk: what is checked in the block is thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        patch.setattr(files, "sync_file_system", lambda fd: True)
        yield


def lay_down(tree: Tree, base: Path) -> None:
    """Make the files and directories of a tree in an empty directory."""
    for path, data in tree:
        if data is None:
            os.mkdir(base / path, 0o700)
        else:
            fd = os.open(base / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, data)
            os.close(fd)
