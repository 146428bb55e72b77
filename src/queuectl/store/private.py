"""Files and directories that only this user can change.

Whoever can write to a store, or to its logs, can run commands as its workers.
"""

import errno
import os
import stat
import sys

from queuectl.errors import StoreUnavailable, UnsafeStore

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def home_directory() -> str | None:
    """Return the user's home directory, None where neither HOME nor the password file has one."""
    home = os.environ["HOME"] if "HOME" in os.environ else os.path.expanduser("~")
    return home if home.startswith("/") else None


def make_private(name: str, directory_fd: int | None = None) -> None:
    """Make a directory of mode 0700 under any umask. Raises: OSError.

    A chmod afterwards would follow a symlink that somebody has put in its place meanwhile.
    """
    before = os.umask(0o777 & ~DIRECTORY_MODE)
    try:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=directory_fd)
    finally:
        os.umask(before)


def open_directory(path: str, *, inside_fd: int | None = None) -> int:
    """Open a directory that only this user can change; the path itself may lead through symlinks.

    With ``inside_fd`` it is the last part of the path, in the directory that is open there.
    Raises: FileNotFoundError; StoreUnavailable where it is no directory or cannot be opened;
    UnsafeStore where it is another's, others can write to it, or it is a symlink inside another.
    """
    name = path if inside_fd is None else os.path.basename(path)
    nofollow = 0 if inside_fd is None else os.O_NOFOLLOW
    try:
        fd = os.open(name, _DIRECTORY | nofollow, dir_fd=inside_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        if inside_fd is not None and _is_symlink(name, inside_fd):
            raise UnsafeStore(f"{path} is a symlink: replace it by a directory") from error
        raise StoreUnavailable(f"the store {path} cannot be used: {error.strerror}") from error
    _check_directory(fd, path)
    return fd


def open_subdirectory(directory_fd: int, name: str, path: str) -> int | None:
    """Open a directory inside an open one; None where there is no directory of that name.

    ``path`` is what it is called in messages. Raises: UnsafeStore as open_directory does.
    """
    try:
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        if _is_symlink(name, directory_fd):
            raise UnsafeStore(f"{path} is a symlink: replace it by a directory") from error
        return None
    _check_directory(fd, path)
    return fd


def _is_symlink(name: str, directory_fd: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode)


def _check_directory(fd: int, path: str) -> None:
    """Close a directory and raise UnsafeStore where somebody else can change it."""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        os.close(fd)
        raise UnsafeStore(
            f"{path} belongs to user {status.st_uid}, not to you (user {os.geteuid()}): whoever"
            " owns a store runs commands as its workers"
        )
    if status.st_mode & 0o022:
        os.close(fd)
        raise UnsafeStore(
            f"{path} can be written to by others (mode {stat.S_IMODE(status.st_mode):04o}):"
            f" chmod 700 {path}"
        )


def set_mode(name: str, mode: int, seen: os.stat_result, directory_fd: int | None = None) -> bool:
    """Give a file or directory a mode; False where its name stands for another one by now.

    A chmod by name would follow a symlink that somebody has put there since it was ``seen``; to
    open it for a fchmod takes the right to read it. Source: O_PATH in open(2), proc(5), Linux only.
    Raises: OSError.
    """
    if sys.platform != "linux":
        os.chmod(name, mode, dir_fd=directory_fd, follow_symlinks=False)
        return True
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        return False
    try:
        if not os.path.samestat(os.fstat(fd), seen):
            return False
        os.chmod(f"/proc/self/fd/{fd}", mode)
        return True
    finally:
        os.close(fd)


def is_ours_alone(status: os.stat_result) -> bool:
    """Return whether an open file is a regular one of this user, and has no other name.

    What is written in place must be: a hard link may be to a file of importance.
    """
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
