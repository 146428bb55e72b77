"""Do the few things with files that the rules of a directory store are made of.

Every call works on descriptors of directories that were checked once, so that a directory swapped
for a symlink later changes nothing. Locks are the kernel's, on an open file (flock(2)).
"""

import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from queuectl.errors import BadDocument, StoreError, StoreUnavailable
from queuectl.store import private

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_CHUNK = 65536
MANY = 16  # from this many new files on, one sync of the file system is quicker than one for each
_FEW = 3  # from so many files on, one sync of the file system is quicker than one for each
_SLOW_SECONDS = 0.1
_AVOID_SECONDS = 30.0
# What renameat2 fails with where the kernel or the file system knows no such move.
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_Fd = TypeVar("_Fd", int, int | None)


@contextmanager
def closing(fd: _Fd) -> Iterator[_Fd]:
    """Close a descriptor, if it is one, when the block ends."""
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def entries(directory_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List an open directory, opened again: forked processes share a descriptor's position."""
    with closing(os.open(".", _DIRECTORY, dir_fd=directory_fd)) as fd, os.scandir(fd) as found:
        yield found


def make_directory(path: str) -> None:
    """Make a directory of mode 0700 under any umask, its parents too, each durable.

    Raises: StoreUnavailable.
    """
    try:
        try:
            private.make_private(path)
        except FileNotFoundError:
            make_directory(os.path.dirname(path))
            private.make_private(path)
        sync_entry(path)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be made: {error.strerror}") from error


def sync_entry(path: str) -> None:
    """Make durable that a file or directory is where it is. Raises: OSError."""
    with closing(os.open(os.path.dirname(path), _DIRECTORY)) as parent_fd:
        sync_directory(parent_fd)


def write_synced(directory_fd: int, name: str, data: bytes, *, sync: bool = True) -> int:
    """Write a new file of mode 0600 and return its open descriptor; with ``sync``, durable.

    A file that could not be written whole is removed. Raises: OSError.
    """
    fd = os.open(name, _CREATE, private.FILE_MODE, dir_fd=directory_fd)
    try:
        os.fchmod(fd, private.FILE_MODE)  # the umask may have taken bits away
        write_all(fd, data)
        if sync:
            sync_each([fd], directory_fd)
    except BaseException:
        os.close(fd)
        with suppress(OSError):  # what stays in tmp/ is tidied away a day later
            os.unlink(name, dir_fd=directory_fd)
        raise
    return fd


def write_all(fd: int, data: bytes) -> None:
    """Write over a file from its start, however little of it the system takes at once.

    Raises: OSError.
    """
    offset = 0
    while offset < len(data):
        offset += os.pwrite(fd, data[offset:] if offset else data, offset)


def open_document(directory_fd: int, name: str) -> int | None:
    """Open a document for reading, None where there is none or what is there is no document.

    A document is a regular file of this user. Neither a symlink is followed nor a FIFO waited for.
    ``name`` may be of two parts; no symlink is followed for the first one either.
    Raises: OSError for what is not the file's fault, such as no free descriptors.
    """
    opened = open_and_stat(directory_fd, name)
    return None if opened is None else opened[0]


def open_and_stat(directory_fd: int, name: str) -> tuple[int, os.stat_result] | None:
    """Open a document as open_document does, and return its status as well."""
    try:
        fd = _open_document(directory_fd, name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES):
            return None
        if _is_other_than_file(directory_fd, name):  # the driver of a device may refuse in any way
            return None
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        return None
    return fd, status


def _open_document(directory_fd: int, name: str) -> int:
    directory, slash, file = name.partition("/")
    if not slash:
        return os.open(name, _READ, dir_fd=directory_fd)
    # RACE: what was a directory when it was listed may be a symlink by now; see
    # test_parent_directory_that_becomes_a_symlink_is_not_followed.
    with closing(os.open(directory, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory_fd)) as inside_fd:
        return os.open(file, _READ, dir_fd=inside_fd)


def _is_other_than_file(directory_fd: int, name: str) -> bool:
    try:
        mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode)


def read_all(fd: int, most: int) -> bytes:
    """Return what a file holds, from its start.

    Raises: BadDocument where that is more than ``most`` bytes; then little of it is read.
    """
    parts: list[bytes] = []
    offset = 0
    while True:
        part = os.pread(fd, _CHUNK, offset)
        parts.append(part)
        offset += len(part)
        if offset > most or (offset == _CHUNK and os.fstat(fd).st_size > most):
            raise BadDocument(f"not a job document: more than {most} bytes")
        if len(part) < _CHUNK:
            return b"".join(parts)


def lock(fd: int, *, wait: bool = False) -> bool:
    """Take the kernel's lock on an open file or directory; False where somebody holds it.

    With ``wait`` it is waited for, in the kernel. The lock that filelock takes, without its import,
    which is a third of a pool's start.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(fd: int) -> bool:
    """Return whether somebody holds the lock of an open file, without taking it.

    Two who ask at the same time must not take each other for the holder, so this asks for a shared
    lock.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def names_inode(directory_fd: int, name: str, opened: os.stat_result) -> bool:
    """Return whether a name still stands for the file that was opened."""
    try:
        named = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)


def as_store_error(error: OSError, what: str) -> StoreError:
    """Return the error that tells a user what an operation of the system refused."""
    return StoreError(f"{what}: {error.strerror or error}")


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Raise what the system refuses in the block as a StoreError that begins with ``what``."""
    try:
        yield
    except OSError as error:
        raise as_store_error(error, what) from error


def move_new(first_fd: int, first: str, second_fd: int, second: str) -> None:
    """Move a file to a name that nothing has, from one open directory to another.

    Source: renameat2(2) with RENAME_NOREPLACE. Where system or file system cannot, it looks first.
    Raises: FileExistsError where something has that name; OSError.
    """
    if sys.platform == "linux":
        try:
            _rename(first_fd, first, second_fd, second, _RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return
    try:
        os.stat(second, dir_fd=second_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(first, second, src_dir_fd=first_fd, dst_dir_fd=second_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), first, None, second)


def exchange(first_fd: int, first: str, second_fd: int, second: str) -> None:
    """Exchange two names, each of a file in an open directory, in one step.

    Source: renameat2(2) with RENAME_EXCHANGE, Linux only. Raises: OSError.
    """
    _rename(first_fd, first, second_fd, second, _RENAME_EXCHANGE)


def _rename(first_fd: int, first: str, second_fd: int, second: str, how: int) -> None:
    renameat2 = getattr(load_library(), "renameat2", None)
    if renameat2 is None:  # an old C library
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(first_fd, os.fsencode(first), second_fd, os.fsencode(second), how) != 0:
        raise _library_error(first, None, second)


@cache
def load_library() -> Any:
    """Return the C library, loaded once."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _library_error(*names: str | None) -> OSError:
    """Return the error of the last call into the C library."""
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), *names)


def sync_file_system(fd: int) -> bool:
    """Make all of a file system durable by one call; False where there is no such call.

    Source: syncfs(2), Linux only; it tells errors since Linux 5.8. Raises: OSError.
    """
    if sys.platform != "linux":
        return False
    if load_library().syncfs(fd) != 0:
        raise _library_error()
    return True


def sync_each(file_fds: Sequence[int], directory_fd: int) -> None:
    """Make open files of a directory durable, each for itself. Raises: OSError."""
    if not _sync_whole(directory_fd):
        for fd in file_fds:
            os.fsync(fd)


def sync_directory(fd: int) -> None:
    """Make durable what has come into an open directory. Raises: OSError."""
    if not _sync_whole(fd):
        os.fsync(fd)


def _sync_whole(directory_fd: int) -> bool:
    """Make all of a file system durable where it may keep half of a rename; False elsewhere.

    On btrfs the fsync of a file or of a directory brings its new names onto the disk, and not that
    the old ones are gone: after a power failure a document has both, and a job is in two places. A
    commit of the whole takes each rename as one. Its directories have one link only; where those of
    another file system have, too, this is slower and no worse.
    """
    return os.fstat(directory_fd).st_nlink == 1 and sync_file_system(directory_fd)


class Syncer:
    """Make files durable, many by one sync of the file system as long as that is quick.

    Such a sync waits for what all others have written, too: while somebody copies a disk image it
    takes seconds. Then each file is synced for itself, for a while.
    """

    def __init__(self) -> None:
        self._avoid_until = 0.0

    def sync(self, file_fds: Sequence[int], directory_fds: Sequence[int]) -> None:
        """Make open files and directories durable. Raises: OSError."""
        started = time.monotonic()
        if _sync_whole(directory_fds[0]):
            return
        if len(file_fds) >= _FEW and started >= self._avoid_until and sync_file_system(file_fds[0]):
            if time.monotonic() - started > _SLOW_SECONDS:
                self._avoid_until = time.monotonic() + _AVOID_SECONDS
            return
        for fd in (*file_fds, *directory_fds):
            os.fsync(fd)


def sync_all(directory_fd: int, names: Iterable[str]) -> None:
    """Make many files of a directory durable: by one sync where there is one, else each alone."""
    if sync_file_system(directory_fd):
        return
    for name in names:
        with closing(os.open(name, _READ, dir_fd=directory_fd)) as fd:
            os.fsync(fd)
