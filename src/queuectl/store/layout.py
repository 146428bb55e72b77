"""The directories of one store: made, opened and checked once, then used by descriptor."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from queuectl.document import MAX_DOCUMENT_BYTES
from queuectl.errors import BadDocument, ConfigError, StoreUnavailable
from queuectl.job import State
from queuectl.store import files, private
from queuectl.store.files import store_errors

FORMAT = 1
ROOT = "."
DIRECTORIES = (*State, "corrupt", "logs", "workers", "tmp")
FILES = (
    "config.json", "format", "stop_workers", "pending.lock", "pool.lock", "purge.lock",
    "tally.json", "worker.log", "worker.log.1",
)  # fmt: skip
FOREIGN = ("lost+found",)  # what mkfs leaves in the root of a file system


class StoreDirectory:
    """The root of a store and its subdirectories, by name; ``ROOT`` is the root itself."""

    def __init__(self, location: str, *, create: bool = False, any_format: bool = False) -> None:
        """Open the directories; with ``create``, make what is missing.

        ``any_format`` accepts a file ``format`` that cannot be read, as doctor must.
        Raises: StoreUnavailable, UnsafeStore; ConfigError if a newer version made it.
        """
        self.location = os.path.abspath(location)
        self.root_fd = -1
        self.format_problem = ""
        self._any_format = any_format
        self._fds: dict[str, int] = {}
        self._is_whole = False
        try:
            with store_errors(f"{self.location} cannot be opened"):
                self._open(create=create)
        except BaseException:
            self.close()
            raise

    def _open(self, *, create: bool) -> None:
        try:
            self.root_fd = private.open_directory(self.location)
        except FileNotFoundError:
            if not create:
                return
            files.make_directory(self.location)
            self.root_fd = private.open_directory(self.location)
        is_whole = has_format = self._check_format()
        for name in DIRECTORIES:
            path = os.path.join(self.location, name)
            try:
                self._fds[name] = private.open_directory(path, inside_fd=self.root_fd)
            except FileNotFoundError:
                is_whole = False
                if create:
                    with store_errors(f"{path} cannot be made"), suppress(FileExistsError):
                        private.make_private(name, self.root_fd)
                    self._fds[name] = private.open_directory(path, inside_fd=self.root_fd)
        if not is_whole and create:
            # RACE: the process that made a directory a moment ago may not have synced its entry
            # yet; see test_first_one_to_write_the_format_syncs_the_entry_of_the_store.
            with store_errors(f"{self.location} cannot be made"):
                files.sync_directory(self.root_fd)
                files.sync_entry(self.location)
        if not has_format and create:
            # Not durable at once: if it is missing, the next process writes it again.
            os.close(self.replace(f"{FORMAT}\n".encode(), ROOT, "format"))
            # Made here, in the directory that was checked.
            with suppress(FileExistsError):
                os.close(files.write_synced(self.root_fd, "pending.lock", b"", sync=False))
        self._is_whole = is_whole or create

    def make(self) -> None:
        """Make what is missing, all of it if somebody removed the store since it was opened."""
        if self._is_whole and self.is_in_place(unknown=False):
            return
        self.close()
        with store_errors(f"{self.location} cannot be opened"):
            self._open(create=True)

    def is_in_place(self, *, unknown: bool = True) -> bool:
        """Return whether the path still leads to the open store; ``unknown`` if nobody can say."""
        try:
            found = os.stat(self.location)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return unknown
        return os.path.samestat(found, os.fstat(self.root_fd))

    def _check_format(self) -> bool:
        """Refuse a newer store, or none at all; return whether the file ``format`` is there."""
        try:
            data = self.read_root_file("format")
        except ConfigError as error:
            if not self._any_format:
                raise
            self.format_problem = str(error)
            return True
        if data is None:
            for name in os.listdir(self.root_fd):
                if name not in (*DIRECTORIES, *FILES, *FOREIGN):
                    raise StoreUnavailable(
                        f"{self.location} is not a queue: it holds {name!r} and no file"
                        " 'format'; give a new or empty directory"
                    )
            self.format_problem = "there is none"
            return False
        text = data.decode(errors="replace").strip().lstrip("0")
        if not (text.isascii() and text.isdigit()):
            problem = f"{self.location}/format is broken: it must hold the number {FORMAT}"
            if not self._any_format:
                raise ConfigError(problem)
            self.format_problem = problem
        elif text != str(FORMAT):
            raise ConfigError(
                f"{self.location} has format {text[:20]}, and this version of queuectl knows"
                f" {FORMAT}: upgrade queuectl"
            )
        return True

    def close(self) -> None:
        """Close the directories."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1

    # --- directories by name ---

    def has(self, directory: str) -> bool:
        """Return whether a directory is there."""
        return directory in self._fds

    def fd(self, directory: str) -> int:
        """Return the descriptor of a directory. Raises: StoreUnavailable if it is missing."""
        fd = self.root_fd if directory == ROOT else self._fds.get(directory, -1)
        if fd < 0:
            raise StoreUnavailable(f"{self.location}/{directory} is missing")
        return fd

    def names(self, directory: str) -> Iterator[str]:
        """Stream the names in a directory; nothing if it is missing."""
        if directory != ROOT and directory not in self._fds:
            return
        what = f"{self.location}/{directory} cannot be read"
        with store_errors(what), files.entries(self.fd(directory)) as found:
            for entry in found:
                yield entry.name

    def reopen(self, directory: str) -> int:
        """Open a directory again: forked processes share the position of a descriptor."""
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd(directory))

    def exists(self, directory: str, name: str) -> bool:
        """Return whether a directory holds a name. Raises: StoreError if nobody can say."""
        try:
            os.stat(name, dir_fd=self.fd(directory), follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise files.as_store_error(
                error, f"{self.location}: {name} cannot be looked up"
            ) from error
        return True

    # --- writing ---

    def make_durable(self, directory: str) -> None:
        """Make durable what has come into a directory."""
        with store_errors(f"{self.location}/{directory} cannot be synced"):
            files.sync_directory(self.fd(directory))

    def temporary(self, name: str) -> str:
        """Return a name for tmp/ that no other file has."""
        return f"{name}.{os.getpid()}.{time.monotonic_ns()}"

    def replace(self, data: bytes, directory: str, name: str, *, sync: bool = True) -> int:
        """Put a file, whole and locked, under a name at once; return its descriptor."""
        with self.written(data, sync=sync) as (temporary, fd):
            os.rename(temporary, name, src_dir_fd=self.fd("tmp"), dst_dir_fd=self.fd(directory))
        return fd

    @contextmanager
    def written(self, data: bytes, *, sync: bool = True) -> Iterator[tuple[str, int]]:
        """Write a locked file in tmp/ for the block to put in its place; removed if that fails."""
        tmp_fd, temporary = self.fd("tmp"), self.temporary("put")
        fd = files.write_synced(tmp_fd, temporary, data, sync=sync)
        try:
            files.lock(fd)
            yield temporary, fd
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(temporary, dir_fd=tmp_fd)
            raise

    # --- small files of the root ---

    def read_root_file(self, name: str) -> bytes | None:
        """Return what a file in the root holds, None if there is none. Raises: ConfigError."""
        if self.root_fd < 0:
            return None
        with store_errors(f"{self.location}/{name} cannot be read"):
            try:
                with files.closing(files.open_document(self.root_fd, name)) as fd:
                    if fd is not None:
                        return files.read_all(fd, MAX_DOCUMENT_BYTES)
            except BadDocument as error:
                raise ConfigError(f"{self.location}/{name} is broken: it is too long") from error
            if self.exists(ROOT, name):
                raise ConfigError(f"{self.location}/{name} is no regular file of yours")
            return None

    def write_root_file(self, name: str, data: bytes) -> None:
        """Replace a file in the root, durably."""
        with store_errors(f"{self.location}/{name} cannot be written"):
            os.close(self.replace(data, ROOT, name))
            files.sync_directory(self.root_fd)

    def open_lock_file(self, name: str) -> int:
        """Return a descriptor of a file in the root that is there to be locked, made if missing.

        Raises: StoreError; ConfigError if it is not a file of this user alone.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with store_errors(f"{self.location}/{name} cannot be opened"):
            fd = os.open(name, flags, private.FILE_MODE, dir_fd=self.root_fd)
            try:
                if not private.is_ours_alone(os.fstat(fd)):
                    raise ConfigError(
                        f"{self.location}/{name} is no file of yours alone: remove it"
                    )
                os.fchmod(fd, private.FILE_MODE)  # the umask may have taken bits away
            except BaseException:
                os.close(fd)
                raise
        return fd
