"""Open a store's directories and files safely, and change them by whole steps.

What the rules of store/directory.py are made of: locks, moves, durable writes.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from queuectl.clock import format_instant, utc_now
from queuectl.config import Settings, read_settings
from queuectl.errors import (
    BadDocument,
    ConfigError,
    StoreError,
    StoreUnavailable,
)
from queuectl.job import (
    MAX_DOCUMENT_BYTES,
    Job,
    State,
    encode_job,
    parse_object,
)
from queuectl.store import files
from queuectl.store.names import (
    pending_name,
)

FORMAT = 1
LOCK_FD_IN_COMMAND = 100  # so high that no script closes or reuses it by accident
DIRECTORIES = (*State, "corrupt", "logs", "workers", "tmp")
FILES = (
    "config.json", "format", "stop_workers", "pending.lock", "pool.lock", "purge.lock",
    "tally.json", "worker.log", "worker.log.1",
)  # fmt: skip
FOREIGN = ("lost+found",)  # what mkfs leaves in the root of a file system


class Place:
    """Be the directories of one store, each opened and checked once."""

    def __init__(self, location: str, *, create: bool = False) -> None:
        """Open the store; with ``create``, make what is missing.

        Raises: StoreUnavailable, UnsafeStore; ConfigError where a newer version made it.
        """
        self.location = os.path.abspath(location)
        self.on_set_aside: Callable[[str], None] | None = None
        self._root_fd = -1
        self._dir_fds: dict[str, int] = {}
        self._is_whole = False
        self._pending_lock_holds = 0
        # As a pool does: what it needs is loaded when it starts, and filelock takes as long as a
        # third of that.
        self._waits_in_kernel = False
        self._settings: tuple[tuple[int, int], Settings] | None = None
        try:
            with self._telling(f"{self.location} cannot be opened"):
                self._open_root(create=create)
        except BaseException:
            self.close()
            raise

    # --- opening and closing ---

    def _open_root(self, *, create: bool) -> None:
        try:
            self._root_fd = files.open_directory(self.location)
        except FileNotFoundError:
            if not create:
                return
            files.make_directory(self.location)
            self._root_fd = files.open_directory(self.location)
        is_whole = known = self._check_format()
        for name in DIRECTORIES:
            path = os.path.join(self.location, name)
            try:
                self._dir_fds[name] = files.open_directory(path, inside_fd=self._root_fd)
            except FileNotFoundError:
                is_whole = False
                if create:
                    with self._telling(f"{path} cannot be made"), suppress(FileExistsError):
                        files.make_private(name, self._root_fd)
                    self._dir_fds[name] = files.open_directory(path, inside_fd=self._root_fd)
        if not is_whole and create:
            # RACE: who made a directory a moment ago may not have synced its entry yet; see
            # test_first_one_to_write_the_format_syncs_the_entry_of_the_store.
            with self._telling(f"{self.location} cannot be made"):
                files.sync_directory(self._root_fd)
                files.sync_entry(self.location)
        if not known and create:
            # Not durable at once: where it is missing, the next one writes it again.
            os.close(self._put(f"{FORMAT}\n".encode(), self._root_fd, "format"))
            # Made here, in the directory that was checked.
            with suppress(FileExistsError):
                os.close(files.write_synced(self._root_fd, "pending.lock", b"", sync=False))
        self._is_whole = is_whole or create

    def make(self) -> None:
        """Make what is missing of the store; see Adder.make."""
        if self._is_whole and self._is_in_place():
            return
        self.close()
        with self._telling(f"{self.location} cannot be opened"):
            self._open_root(create=True)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.location), os.fstat(self._root_fd))
        except OSError:
            return False

    def _check_format(self) -> bool:
        """Refuse what is no store, or a newer one; return whether the format is written down."""
        data = self._read_root_file("format")
        if data is None:
            for name in os.listdir(self._root_fd):
                if name not in (*DIRECTORIES, *FILES, *FOREIGN):
                    raise StoreUnavailable(
                        f"{self.location} is not a queue: it holds {name!r} and no file"
                        " 'format'; give a new or empty directory"
                    )
            return False
        text = data.decode(errors="replace").strip().lstrip("0")
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(f"{self.location}/format is broken: it must hold the number {FORMAT}")
        if text != str(FORMAT):
            raise ConfigError(
                f"{self.location} has format {text[:20]}, and this version of queuectl knows"
                f" {FORMAT}: upgrade queuectl"
            )
        return True

    def close(self) -> None:
        """Free what the store holds open."""
        for fd in self._dir_fds.values():
            os.close(fd)
        self._dir_fds.clear()
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def is_in_place(self) -> bool:
        """Return whether its path still leads to the open store; see Store.is_in_place."""
        try:
            found = os.stat(self.location)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # nothing is known then
            return True
        return os.path.samestat(found, os.fstat(self._root_fd))

    def _fd(self, name: str) -> int:
        fd = self._dir_fds.get(name)
        if fd is None:
            raise StoreUnavailable(f"{self.location}/{name} is missing")
        return fd

    def _names(self, directory: str) -> Iterator[str]:
        """Stream the names in a directory; nothing where it is not there."""
        if directory not in self._dir_fds:
            return
        with self._telling(f"{self.location}/{directory} cannot be read"):
            fd = self._reopen(directory)
            try:
                with os.scandir(fd) as found:
                    for entry in found:
                        yield entry.name
            finally:
                os.close(fd)

    def _reopen(self, directory: str) -> int:
        """Open a directory anew: processes that were forked share the position of a descriptor."""
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd(directory))

    # --- small files of the root ---

    def _read_root_file(self, name: str) -> bytes | None:
        if self._root_fd < 0:
            return None
        with self._telling(f"{self.location}/{name} cannot be read"):
            fd = files.open_document(self._root_fd, name)
            if fd is None:
                if self._exists(self._root_fd, name):
                    raise ConfigError(f"{self.location}/{name} is no regular file of yours")
                return None
            try:
                return files.read_all(fd, MAX_DOCUMENT_BYTES)
            except BadDocument as error:
                raise ConfigError(f"{self.location}/{name} is broken: it is too long") from error
            finally:
                os.close(fd)

    def _write_root_file(self, name: str, data: bytes) -> None:
        with self._telling(f"{self.location}/{name} cannot be written"):
            os.close(self._put(data, self._root_fd, name))
            files.sync_directory(self._root_fd)

    def _exists(self, directory_fd: int, name: str) -> bool:
        try:
            os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise files.as_store_error(
                error, f"{self.location}: {name} cannot be looked up"
            ) from error
        return True

    def _temporary(self, name: str) -> str:
        return f"{name}.{os.getpid()}.{time.monotonic_ns()}"

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turn what the system refuses into a fact for the user."""
        try:
            yield
        except OSError as error:
            raise files.as_store_error(error, what) from error

    @contextmanager
    def _moving_into_pending(self) -> Iterator[None]:
        """Hold pending.lock (rule 7); may be nested."""
        fd = -1
        if self._pending_lock_holds == 0:
            with self._telling(f"{self.location}/pending.lock cannot be locked"):
                fd = self._lock_pending()
        self._pending_lock_holds += 1
        try:
            yield
        finally:
            self._pending_lock_holds -= 1
            if fd >= 0:
                os.close(fd)  # which frees the lock

    def _lock_pending(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            fd = os.open("pending.lock", flags, files.FILE_MODE, dir_fd=self._root_fd)
            try:
                self._wait_for_lock(fd)
                # RACE: a hand may have deleted it meanwhile, and others lock a new one; see
                # test_pending_lock_that_a_hand_deletes_is_taken_anew.
                if files.names_inode(self._root_fd, "pending.lock", os.fstat(fd)):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _open_lock_file(self, name: str) -> int:
        """Return a descriptor of a file in the root that is there to be locked, made if missing.

        Raises: StoreError, ConfigError that names it if it is not a file of this user alone.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self._telling(f"{self.location}/{name} cannot be opened"):
            fd = os.open(name, flags, files.FILE_MODE, dir_fd=self._root_fd)
            try:
                if not files.is_ours_alone(os.fstat(fd)):
                    raise ConfigError(
                        f"{self.location}/{name} is no file of yours alone: remove it"
                    )
                os.fchmod(fd, files.FILE_MODE)  # the umask may have taken bits away
            except BaseException:
                os.close(fd)
                raise
        return fd

    def _wait_for_lock(self, fd: int) -> None:
        if self._waits_in_kernel:
            files.wait_for_lock(fd)
            return
        # Not filelock's FileLock: it makes the directory anew where a hand has deleted the store.
        from filelock import lock_descriptor

        lock_descriptor(fd, poll_interval=0.002)

    # --- moving documents ---

    @contextmanager
    def _locked(self, state: State | str, name: str) -> Iterator[int | None]:
        """Hold the lock of a document (rule 2); None where it is gone, no document, or held."""
        with self._telling(f"{self.location}/{state}/{name} cannot be opened"):
            fd = files.open_document(self._fd(state), name)
        if fd is None:
            yield None
            return
        try:
            with self._telling(f"{self.location}/{state}/{name} cannot be locked"):
                held = files.lock(fd) and files.names_inode(self._fd(state), name, os.fstat(fd))
            yield fd if held else None
        finally:
            os.close(fd)

    def _record_in_place(self, state: State, name: str, job: Job) -> int:
        """Put a new document, durable and locked, in the place of one that is locked."""
        with self._telling(f"{self.location}/{state}/{name} cannot be written"):
            return self._put(encode_job(job), self._fd(state), name)

    def _put(self, data: bytes, directory_fd: int, name: str, *, sync: bool = True) -> int:
        """Put a file, whole and locked, under a name at once; return its descriptor."""
        with self._written(data, sync=sync) as (temporary, fd):
            os.rename(temporary, name, src_dir_fd=self._fd("tmp"), dst_dir_fd=directory_fd)
        return fd

    @contextmanager
    def _written(self, data: bytes, *, sync: bool = True) -> Iterator[tuple[str, int]]:
        """Write a file in tmp/, locked, for the block to put in its place; gone if that fails."""
        tmp_fd, temporary = self._fd("tmp"), self._temporary("put")
        fd = files.write_synced(tmp_fd, temporary, data, sync=sync)
        try:
            files.lock(fd)
            yield temporary, fd
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(temporary, dir_fd=tmp_fd)
            raise

    def _move(self, source: State | str, name: str, target: State | str, new_name: str) -> None:
        """Move a document that is locked, and put aside what has its name there; see _put_aside."""
        try:
            while True:
                try:
                    files.move_new(self._fd(source), name, self._fd(target), new_name)
                except FileExistsError:
                    self._put_aside(target, new_name)
                else:
                    return
        except OSError as error:
            what = f"{self.location}/{source}/{name} cannot be moved to {target}"
            raise files.as_store_error(error, what) from error

    def _put_aside(self, state: State | str, name: str) -> None:
        """Move a document to corrupt/ that stands where another job of its id is to go.

        Only a hand can have put it there, or have set the other one going. Neither record is lost.
        Raises: StoreError as long as somebody holds it; OSError.
        """
        opened = files.open_and_stat(self._fd(state), name)
        try:
            if opened is not None and not files.lock(opened[0]):
                raise StoreError(f"{self.location}/{state}/{name} is in the way, and held")
            named = opened is None or files.names_inode(self._fd(state), name, opened[1])
            if named and self._exists(self._fd(state), name):
                self._move_to_corrupt(state, name, "another job of this id has come there")
        finally:
            if opened is not None:
                os.close(opened[0])

    def _make_arrivals_durable(self, state: State) -> None:
        """Make durable what has come into a state, before it moves on from there.

        Else a power failure could undo the first move and keep the second, and leave the job in two
        places.
        """
        with self._telling(f"{self.location}/{state} cannot be synced"):
            files.sync_directory(self._fd(state))

    def _move_back_durably(self, state: State, name: str, in_pending: str) -> None:
        """Move a finished job to pending/, where none can claim it as long as it is locked."""
        self._move(state, name, State.PENDING, in_pending)
        try:
            self._make_arrivals_durable(State.PENDING)
        except StoreError:
            self._move(State.PENDING, in_pending, state, name)
            raise

    def _move_to_corrupt(self, directory: State | str, name: str, reason: str) -> None:
        """Move a locked document that cannot be read to corrupt/, with the reason beside it."""
        corrupt_fd = self._fd("corrupt")
        stem, suffix = os.path.splitext(os.path.basename(name))
        # A name may have 255 bytes, and needs room for a number and ".reason".
        stem, number = os.fsdecode(os.fsencode(stem)[:200]), 1
        kept_as = stem + suffix
        text = f"{format_instant(utc_now())} {directory}/{name}: {reason}"
        data = text.replace("\n", "\\n").encode(errors="backslashreplace") + b"\n"
        with (
            self._telling(f"{self.location}/corrupt/{kept_as}.reason cannot be written"),
            self._written(data) as (temporary, fd),
        ):
            # RACE: another process may set aside a file of that name at the same time; whoever has
            # the name of the reason has that of the document. See test_names.py.
            while not self._put_new(temporary, corrupt_fd, kept_as):
                number += 1
                kept_as = f"{stem}-{number}{suffix}"
        os.close(fd)
        self._move(directory, name, "corrupt", kept_as)
        if self.on_set_aside is not None:
            self.on_set_aside(f"moved {directory}/{name} to corrupt/: {reason}")

    def _put_new(self, temporary: str, corrupt_fd: int, kept_as: str) -> bool:
        """Put a reason into corrupt/; False where there is one of that name, or such a document."""
        if self._exists(corrupt_fd, kept_as):
            return False
        try:
            files.move_new(self._fd("tmp"), temporary, corrupt_fd, kept_as + ".reason")
        except FileExistsError:
            return False
        return True

    @staticmethod
    def _name_in_pending(job: Job) -> str:
        return pending_name(job.priority, job.run_at, job.id)

    def read_config(self) -> dict[str, Any]:
        """Return what was set; see Store.read_config."""
        data = self._read_root_file("config.json")
        if data is None:
            return {}
        try:
            return parse_object(data)
        except BadDocument as error:
            reason = str(error).removeprefix("not a job document: ")
            raise ConfigError(f"{self.location}/config.json is broken: {reason}") from error

    def change_config(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Apply a change to what was set, under pending.lock."""
        with self._moving_into_pending():
            document = change(self.read_config())
            data = json.dumps(document, indent=2) + "\n"
            self._write_root_file("config.json", data.encode())

    def settings(self) -> Settings:
        """Return the settings; see Store.settings."""
        version = self._config_version()
        if self._settings is None or self._settings[0] != version:
            settings = read_settings(self.read_config(), f"{self.location}/config.json")
            self._settings = (version, settings)
        return self._settings[1]

    def _config_version(self) -> tuple[int, int]:
        if self._root_fd < 0:
            return 0, 0
        try:
            status = os.stat("config.json", dir_fd=self._root_fd, follow_symlinks=False)
        except FileNotFoundError:
            return 0, 0
        except OSError as error:
            what = f"{self.location}/config.json cannot be read"
            raise files.as_store_error(error, what) from error
        return status.st_ino, status.st_mtime_ns
