"""Recovery beside documents and records that the disk refuses."""

import errno
import os

import pytest
from tests.directory.conftest import Place
from tests.jobs import (
    NOON,
    claimed,
    decide,
    make_jobs,
)

from queuectl.store import files
from queuectl.store.protocol import Store


def test_recovery_goes_on_behind_a_document_that_cannot_be_read(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector under one job keeps no other from being run again; it is told which one."""
    ids = ["a", "b", "c"]
    store.add(make_jobs(*ids))

    def claim_all(other: Store) -> None:
        for _ in ids:
            claimed(other)

    place.process_that(claim_all)
    original = files.open_document

    def refuse(directory_fd: int, name: str) -> int | None:
        if name == "b.1.json":
            raise OSError(errno.EIO, "Input/output error")
        return original(directory_fd, name)

    monkeypatch.setattr(files, "open_document", refuse)
    report = store.pool.recover(decide)
    assert sorted(each.job.id for each in report.recovered) == ["a", "c"]
    assert report.unowned == 1
    (problem,) = report.problems
    assert "processing/b.1.json cannot be" in problem
    monkeypatch.undo()
    assert [each.job.id for each in store.pool.recover(decide).recovered] == ["b"]


def test_recovery_tells_what_it_has_recovered_where_a_record_cannot_be_removed(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a killed worker is in nobody's way: it is told, and no worker ends with it."""
    store.add(make_jobs("a"))

    def work(other: Store) -> None:
        other.queue.register("w-2", NOON)
        claimed(other)

    place.process_that(work)

    def refuse(name: str, *, dir_fd: int) -> None:
        del dir_fd
        raise OSError(errno.EIO, "Input/output error", name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        report = store.pool.recover(decide)
    assert [(each.job.id, each.lost) for each in report.recovered] == [("a", True)]
    (problem,) = report.problems
    assert problem.endswith("workers cannot be tidied: Input/output error")
    assert report.unowned == 1  # looked after again
    assert store.pool.recover(decide).problems == []
