"""What ``queuectl doctor`` prints, and its exit codes."""

import json
import os
from collections.abc import Iterator

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing

from queuectl.job import State


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Let what a test writes be the user's alone, as what the program writes is."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_nothing_is_said_of_a_clean_store(run: Run, place: Placing) -> None:
    """Silence is good news; in JSON it is an empty array."""
    place.job(State.COMPLETED, "fine")
    for words in (("doctor",), ("doctor", "--repair")):
        assert run(*words) == (0, "", "")
        assert run(*words, "--json") == (0, "[]\n", "")


def test_an_absent_store_is_clean_and_stays_absent(run: Run) -> None:
    """Neither a look nor a repair makes a store."""
    assert run("doctor") == run("doctor", "--repair") == (0, "", "")
    assert not run.store_dir.exists()


def test_damage_is_told_on_a_line_each_and_repaired(run: Run, place: Placing) -> None:
    """What, where, and what to do or what was done; the exit code tells whether any is left."""
    place.job(State.COMPLETED, "broken").write_text("{")
    place.job(State.COMPLETED, "loose").chmod(0o644)
    code, stdout, stderr = run("doctor")
    assert (code, stderr) == (1, "")
    assert sorted(stdout.splitlines()) == [
        "mode 0644: completed/loose.json: chmod 0600",
        "unreadable: completed/broken.json: --repair moves it to corrupt/",
    ]
    code, stdout, stderr = run("doctor", "--repair")
    assert (code, stderr) == (0, "")
    assert sorted(stdout.splitlines()) == [
        "mode 0644: completed/loose.json: was made 0600",
        (
            "unreadable: completed/broken.json: not a job document: bad JSON: Expecting property"
            " name enclosed in double quotes: line 1 column 2 (char 1); is moved to corrupt/"
        ),
    ]
    assert run("doctor") == (0, "", "")
    assert (place.store_dir / "corrupt" / "broken.json").read_text() == "{"


def test_json_tells_the_same(run: Run, place: Placing) -> None:
    """One object for each finding."""
    place.job(State.COMPLETED, "loose").chmod(0o644)
    code, stdout, _ = run("doctor", "--json")
    assert code == 1
    assert json.loads(stdout) == [
        {
            "what": "mode 0644",
            "where": "completed/loose.json",
            "action": "chmod 0600",
            "repaired": False,
            "note": False,
        }
    ]
    code, stdout, _ = run("doctor", "--json", "--repair")
    assert (code, json.loads(stdout)[0]["repaired"]) == (0, True)


def test_a_note_is_no_damage(run: Run, place: Placing) -> None:
    """A foreign file is told, with nothing in its name that a terminal would obey."""
    (place.store_dir / "completed" / "a\x1b[2Jb").touch()
    line = "note: foreign file: completed/a\\x1b[2Jb: left alone\n"
    assert run("doctor") == run("doctor", "--repair") == (0, line, "")


def test_what_cannot_be_repaired_exits_with_1(run: Run, place: Placing) -> None:
    """Whoever reads the exit code knows that something is left to do."""
    place.job(State.COMPLETED, "new").write_text('{"schema": 2}')
    line = "newer schema: completed/new.json: upgrade queuectl\n"
    assert run("doctor", "--repair") == (1, line, "")


def test_a_newer_format_is_refused(run: Run, place: Placing) -> None:
    """As by every other command."""
    (place.store_dir / "format").write_text("2\n")
    code, stdout, stderr = run("doctor", "--repair")
    assert (code, stdout) == (78, "")
    assert stderr == run("list").stderr


def test_what_is_no_store_is_refused(run: Run) -> None:
    """Nothing in it is touched."""
    run.store_dir.mkdir(mode=0o700)
    (run.store_dir / "photo.jpg").touch()
    code, stdout, stderr = run("doctor", "--repair")
    assert (code, stdout) == (69, "")
    assert "is not a queue" in stderr
