"""The few things that a directory store does with files."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from queuectl.errors import BadDocument, StoreUnavailable, UnsafeStore
from queuectl.store import files, private


@pytest.fixture
def directory_fd(tmp_path: Path) -> Iterator[int]:
    """Return the descriptor of an empty directory."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(params=[0o000, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set a umask for the test."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_file_is_its_owners_under_any_umask(tmp_path: Path, directory_fd: int, umask: None) -> None:
    """A document is 0600, whatever the umask takes away or leaves."""
    os.close(files.write_synced(directory_fd, "a", b"text"))
    assert mode(tmp_path / "a") == 0o600
    assert (tmp_path / "a").read_bytes() == b"text"


def test_directories_are_their_owners_under_any_umask(tmp_path: Path, umask: None) -> None:
    """A store is 0700 with all that is made above it."""
    files.make_directory(str(tmp_path / "a" / "b"))
    assert mode(tmp_path / "a") == 0o700
    assert mode(tmp_path / "a" / "b") == 0o700
    files.make_directory(str(tmp_path / "a" / "b"))


def test_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file in the way is an error that names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="file/store"):
        files.make_directory(str(tmp_path / "file" / "store"))


def test_file_that_is_there_is_not_written_over(tmp_path: Path, directory_fd: int) -> None:
    """A name in tmp/ that is taken, a symlink included, is never followed or replaced."""
    (tmp_path / "target").write_text("precious")
    (tmp_path / "a").symlink_to("target")
    with pytest.raises(FileExistsError):
        files.write_synced(directory_fd, "a", b"text")
    assert (tmp_path / "target").read_text() == "precious"


def test_file_that_could_not_be_written_whole_is_removed(
    tmp_path: Path, directory_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves neither a file nor a descriptor."""

    def refuse(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="No space"):
        files.write_synced(directory_fd, "a", b"text")
    assert os.listdir(tmp_path) == []


def test_document_is_a_regular_file(tmp_path: Path, directory_fd: int) -> None:
    """What is no regular file of this user is no document, and is never waited for."""
    (tmp_path / "a").write_text("x")
    fd = files.open_document(directory_fd, "a")
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "link", "directory", "nothing"):
        assert files.open_document(directory_fd, name) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_document_of_another_user_is_none(tmp_path: Path, directory_fd: int) -> None:
    """Another user's file in the store is left where it is."""
    (tmp_path / "a").write_text("x")
    os.chown(tmp_path / "a", 12345, -1)
    assert files.open_document(directory_fd, "a") is None


def test_want_of_descriptors_is_not_a_missing_document(
    directory_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not the file's fault goes to the caller."""

    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many"):
        files.open_document(directory_fd, "a")


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_all_of_a_file_is_read(tmp_path: Path, directory_fd: int, size: int) -> None:
    """A file of any size is read from its start, wherever the descriptor stands."""
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    fd = files.open_document(directory_fd, "a")
    assert fd is not None
    os.lseek(fd, 0, os.SEEK_END)
    assert files.read_all(fd, 1_000_000) == data
    os.close(fd)


@pytest.mark.parametrize("size", [4097, 65536, 65537, 100_000])
def test_file_of_more_than_the_most_is_refused(tmp_path: Path, size: int) -> None:
    """One byte too many is too many, wherever the pieces end in which a file is read."""
    (tmp_path / "a").write_bytes(bytes(size))
    with open(tmp_path / "a", "rb") as file:
        assert len(files.read_all(file.fileno(), size)) == size
        with pytest.raises(BadDocument, match=f"more than {size - 1} bytes"):
            files.read_all(file.fileno(), size - 1)


def test_huge_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a file decides, so that 100 MB cost neither memory nor time."""
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    with open(tmp_path / "a", "w+b") as file:
        file.truncate(100_000_000)
        with pytest.raises(BadDocument, match="more than 1000000 bytes"):
            files.read_all(file.fileno(), 1_000_000)
    assert sum(read) <= 65536


def test_lock_is_held_until_the_last_copy_of_its_descriptor_is_closed(tmp_path: Path) -> None:
    """A command that inherited the descriptor keeps the lock when its worker is gone."""
    (tmp_path / "a").touch()
    worker, other = (os.open(tmp_path / "a", os.O_RDONLY) for _ in range(2))
    assert files.lock(worker)
    inherited = os.dup(worker)
    assert not files.lock(other)
    os.close(worker)
    assert not files.lock(other)
    os.close(inherited)
    assert files.lock(other)
    os.close(other)


def test_name_is_compared_by_the_file_that_it_stands_for(tmp_path: Path, directory_fd: int) -> None:
    """A name that stands for another file now, or a symlink to the old one, is not the same."""
    path = tmp_path / "a"
    path.write_text("x")
    fd = os.open(path, os.O_RDONLY)
    assert files.names_inode(directory_fd, "a", os.fstat(fd))
    path.rename(tmp_path / "b")
    assert not files.names_inode(directory_fd, "a", os.fstat(fd))
    path.symlink_to("b")
    assert not files.names_inode(directory_fd, "a", os.fstat(fd))
    os.close(fd)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="renameat2 is Linux's")
def test_two_files_change_places(tmp_path: Path, directory_fd: int) -> None:
    """An exchange leaves both files, each under the other's name; a missing one is an error."""
    (tmp_path / "a").write_text("first")
    (tmp_path / "b").write_text("second")
    files.exchange(directory_fd, "a", directory_fd, "b")
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("second", "first")
    with pytest.raises(FileNotFoundError):
        files.exchange(directory_fd, "a", directory_fd, "nothing")


@pytest.mark.parametrize("unsupported", [None, *files.UNSUPPORTED])
def test_file_moves_only_to_a_name_that_nothing_has(
    tmp_path: Path, directory_fd: int, monkeypatch: pytest.MonkeyPatch, unsupported: int | None
) -> None:
    """A file is never moved over another one, nor over a dangling symlink, on any file system."""
    if unsupported is not None:

        def refuse(*_: object) -> None:
            raise OSError(unsupported, os.strerror(unsupported))

        monkeypatch.setattr(files, "_rename", refuse)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    (tmp_path / "dangling").symlink_to("nothing")
    files.move_new(directory_fd, "a", directory_fd, "new")
    for taken in ("new", "dangling"):
        with pytest.raises(FileExistsError):
            files.move_new(directory_fd, "b", directory_fd, taken)
    with pytest.raises(FileNotFoundError):
        files.move_new(directory_fd, "a", directory_fd, "d")
    assert sorted(os.listdir(tmp_path)) == ["b", "c", "dangling", "new"]
    assert (tmp_path / "new").read_text() == "a"


def test_c_library_without_the_call_is_as_a_kernel_without_it(
    tmp_path: Path, directory_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file moves all the same, and an exchange says that it cannot be done."""
    monkeypatch.setattr(files, "load_library", object)
    (tmp_path / "a").touch()
    files.move_new(directory_fd, "a", directory_fd, "b")
    with pytest.raises(OSError, match="not implemented") as raised:
        files.exchange(directory_fd, "b", directory_fd, "b")
    assert raised.value.errno in files.UNSUPPORTED


@pytest.mark.parametrize(("bits", "safe"), [(0o700, True), (0o755, True), (0o720, False),
                                            (0o702, False), (0o777, False)])  # fmt: skip
def test_directory_that_others_can_write_to_is_refused(
    tmp_path: Path, bits: int, safe: bool
) -> None:
    """A store that others could put jobs into is refused, with what to do."""
    path = tmp_path / "store"
    path.mkdir()
    path.chmod(bits)
    if safe:
        os.close(private.open_directory(str(path)))
    else:
        with pytest.raises(UnsafeStore, match="chmod 700"):
            private.open_directory(str(path))


def test_symlink_in_the_place_of_a_directory_is_refused(tmp_path: Path, directory_fd: int) -> None:
    """A state directory that is a symlink is refused; a store that is one is followed."""
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UnsafeStore, match="symlink"):
        private.open_directory(str(tmp_path / "link"), inside_fd=directory_fd)
    os.close(private.open_directory(str(tmp_path / "link")))


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file in the place of a store is an error that names it; a missing one is told apart."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="file"):
        private.open_directory(str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        private.open_directory(str(tmp_path / "nothing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """A store of somebody else is refused, also for root."""
    (tmp_path / "store").mkdir(0o700)
    os.chown(tmp_path / "store", 12345, -1)
    with pytest.raises(UnsafeStore, match="belongs to user 12345"):
        private.open_directory(str(tmp_path / "store"))


@pytest.mark.parametrize("links", [1, 2])
def test_whole_file_system_is_synced_where_directories_have_one_link(
    directory_fd: int, monkeypatch: pytest.MonkeyPatch, links: int
) -> None:
    """On btrfs, which shows that way, no file or directory is synced for itself."""
    calls: list[str] = []

    def sync_all(fd: int) -> bool:
        calls.append("all")
        return True

    monkeypatch.setattr(files, "sync_file_system", sync_all)
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("one"))
    monkeypatch.setattr(os, "fstat", lambda fd: SimpleNamespace(st_nlink=links))
    fd = files.write_synced(directory_fd, "a", b"text")
    files.sync_directory(directory_fd)
    files.Syncer().sync([fd], [directory_fd])
    monkeypatch.undo()
    os.close(fd)
    assert calls == (["all"] * 3 if links == 1 else ["one"] * 4)
