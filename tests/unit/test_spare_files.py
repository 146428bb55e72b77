"""Files of old documents, which take new ones."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuectl.store import files
from queuectl.store.spare_files import LEFT, SpareFiles


@pytest.fixture
def tmp_fd(tmp_path: Path) -> Iterator[int]:
    """The open tmp/ of a store."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def written(spares: SpareFiles, text: str) -> str:
    """Write a document and close it; return the name of its file."""
    name, fd = spares.write(text.encode())
    os.close(fd)
    return name


def left(tmp_path: Path) -> list[str]:
    """Return the names of the files that belong to nobody."""
    return sorted(name for name in os.listdir(tmp_path) if name.startswith(LEFT))


def left_by_a_process(tmp_path: Path, tmp_fd: int, *texts: str) -> list[str]:
    """Leave files that held these texts, by a process that has settled some documents."""
    spares = SpareFiles(tmp_fd, tmp_fd)
    for text in texts:
        document = tmp_path / "document"
        document.write_text(text)
        spares.put_in_place(written(spares, "new"), "document")
        document.unlink()
    spares.leave()
    return left(tmp_path)


def test_what_is_left_holds_no_word_of_a_job(tmp_path: Path, tmp_fd: int) -> None:
    """The job that it was may be purged before it is used again."""
    names = left_by_a_process(tmp_path, tmp_fd, "secret", "other secret")
    assert len(names) == len(os.listdir(tmp_path)) == 2
    assert {(tmp_path / name).read_bytes().strip(b"\0") for name in names} == {b""}


def test_two_processes_never_take_the_same_file(tmp_path: Path, tmp_fd: int) -> None:
    """Though both have seen it; whoever comes second makes a file."""
    left_by_a_process(tmp_path, tmp_fd, "one")
    first, second = SpareFiles(tmp_fd, tmp_fd), SpareFiles(tmp_fd, tmp_fd)
    first._left = first._look_for_left()
    second._left = second._look_for_left()
    inode = os.stat(tmp_path / left(tmp_path)[0]).st_ino
    names = [written(first, "a"), written(second, "b")]
    assert os.stat(tmp_path / names[0]).st_ino == inode
    assert [(tmp_path / name).read_text() for name in names] == ["a", "b"]
    assert left(tmp_path) == []


def test_what_is_not_known_to_be_durable_is_deleted(
    tmp_path: Path, tmp_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure could bring back its old name; nobody must write to it."""

    def fails(_fd: int) -> bool:
        raise OSError(5, "an error")

    monkeypatch.setattr(files, "sync_file_system", fails)
    assert left_by_a_process(tmp_path, tmp_fd, "one") == []
    assert os.listdir(tmp_path) == []


def test_a_full_disk_takes_the_room_of_spare_files(
    tmp_path: Path, tmp_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of other processes, but not the file of one that writes a document just now."""
    other, own = SpareFiles(tmp_fd, tmp_fd), SpareFiles(tmp_fd, tmp_fd)
    (tmp_path / "document").write_text("old")
    other.put_in_place(written(other, "new"), "document")
    other.synced()
    (spare,) = other._ready
    (tmp_path / "document").unlink()
    busy, busy_fd = SpareFiles(tmp_fd, tmp_fd).write(b"being written")
    write_synced = files.write_synced

    def needs_room(*arguments: Any, **options: Any) -> int:
        if (tmp_path / spare).exists():
            raise OSError(errno.ENOSPC, "no room")
        return write_synced(*arguments, **options)

    monkeypatch.setattr(files, "write_synced", needs_room)
    name = written(own, "text")
    assert sorted(os.listdir(tmp_path)) == sorted([busy, name])
    os.close(busy_fd)
    # Its process finds it gone, and makes another.
    assert (tmp_path / written(other, "next")).read_text() == "next"


@pytest.mark.parametrize("size", [4097, 100_000])
def test_a_large_file_is_deleted(tmp_path: Path, tmp_fd: int, size: int) -> None:
    """It would hold its room for ever."""
    assert left_by_a_process(tmp_path, tmp_fd, "x" * size) == []


def test_a_linked_file_is_not_written_over(tmp_path: Path, tmp_fd: int) -> None:
    """Neither when it is left nor when it is taken: a backup may hold it."""
    backup = tmp_path.parent / f"{tmp_path.name}-backup"
    (name,) = left_by_a_process(tmp_path, tmp_fd, "one")
    (tmp_path / name).write_text("kept")
    os.link(tmp_path / name, backup)
    spares = SpareFiles(tmp_fd, tmp_fd)
    assert (tmp_path / written(spares, "new")).read_text() == "new"
    assert backup.read_text() == "kept"
    assert left(tmp_path) == []


def test_what_is_no_file_stays_where_it_is(tmp_path: Path, tmp_fd: int) -> None:
    """Whoever has made it may call it as he likes."""
    os.mkfifo(tmp_path / f"{LEFT}fifo")
    (tmp_path / f"{LEFT}link").symlink_to("/etc/passwd")
    (tmp_path / f"{LEFT}directory").mkdir()
    before = left(tmp_path)
    spares = SpareFiles(tmp_fd, tmp_fd)
    assert (tmp_path / written(spares, "new")).read_text() == "new"
    assert left(tmp_path) == before


def test_a_document_is_the_users_alone_whatever_its_file_was(tmp_path: Path, tmp_fd: int) -> None:
    """A file that a hand has made with mode 0644 is given 0600."""
    (tmp_path / f"{LEFT}1").write_text("x" * 100)
    (tmp_path / f"{LEFT}1").chmod(0o644)
    name = written(SpareFiles(tmp_fd, tmp_fd), "new")
    assert (tmp_path / name).read_text() == "new"
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
