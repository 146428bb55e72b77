"""A directory with anything in it is a store to no command's harm, and to nobody else's."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import examples
from tests.jobs import NOON
from tests.property.hostile import (
    ENDING,
    IDS,
    KINDS,
    NAMES,
    READING,
    TEXTS,
    WRITING,
    Put,
    drain,
    put,
    puts,
    run,
    snapshot,
)

from queuectl.store import open_store
from queuectl.store.layout import DIRECTORIES, FILES
from queuectl.store.names import pending_name

PLACES = ("blocked/a", "blocked/b-1", *DIRECTORIES)
OLD = 1_000_000_000
# In memory, where a sync costs nothing, and where files may be of any time.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def hostile_store() -> Iterator[tuple[Path, Callable[[Put], None]]]:
    """Make a store and what fills it; what lies outside must be the same in the end."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        base = Path(made)
        store, outside = base / "store", base / "outside"
        outside.mkdir()
        (outside / "file.json").write_text('{"command": "true"}')
        open_store(str(store), create=True).close()
        before = snapshot(outside)
        yield store, lambda each: put(store, outside, each)
        assert snapshot(outside) == before
        assert sorted(path.name for path in base.iterdir()) == ["outside", "store"]


def run_everything(store: Path) -> None:
    """Run every command, those that only look before and after those that change."""
    for words in (*READING, *WRITING):
        run(store, words)
    drain(store)
    for words in (*READING, *ENDING, *READING):
        run(store, words)


@settings(max_examples=examples(8, 2000))
@given(st.lists(puts, max_size=12, unique_by=lambda each: (each.directory, each.name)))
def test_every_command_answers_whatever_lies_in_the_store(things: list[Put]) -> None:
    """No traceback, no hang, a code that is documented, and nothing changes outside."""
    with hostile_store() as (store, add):
        for each in things:
            add(each)
        run_everything(store)


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_answers_with_no_documents_where_they_belong(kind: str) -> None:
    """A FIFO, a device or a loop under any name in any directory holds up nobody."""
    with hostile_store() as (store, add):
        for directory in PLACES:
            for name in (*NAMES, *(pending_name(5, NOON, each).encode() for each in IDS)):
                # Whatever a symlink in blocked/ leads to, the store is refused for it.
                if not (directory == "blocked" and kind.startswith("link to a dir")):
                    add(Put(directory, name, kind, b'{"command": "true"}', OLD))
        run_everything(store)


@pytest.mark.parametrize("first", range(4))
def test_every_command_answers_with_bad_documents_everywhere(first: int) -> None:
    """Whatever the documents hold, each is a job, an error that is told, or set aside."""
    with hostile_store() as (store, add):
        number = first * 7
        for directory in PLACES:
            for name in (*NAMES, *(pending_name(5, NOON, each).encode() for each in IDS)):
                add(Put(directory, name, "file", TEXTS[number % len(TEXTS)], OLD))
                number += 1
        run_everything(store)


@pytest.mark.parametrize("name", FILES)
def test_every_command_answers_whatever_the_files_of_the_root_are(name: str) -> None:
    """What is no regular file, or holds anything, is an error that names it, or left alone."""
    for kind in KINDS:
        with hostile_store() as (store, add):
            add(Put(".", name.encode(), kind, b"", OLD))
            for words in (*READING, *WRITING, *ENDING):
                run(store, words)
    for text in TEXTS:
        with hostile_store() as (store, add):
            add(Put(".", name.encode(), "file", text, OLD))
            for words in (*READING[::2], *WRITING):
                run(store, words)
