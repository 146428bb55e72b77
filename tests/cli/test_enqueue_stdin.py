"""A lone ``-``: the command is read from stdin."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run

HINT = " Try 'queuectl enqueue --help'."


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let the next command find bytes on stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def only_job(run: Run) -> dict[str, Any]:
    """Return the one job there is."""
    (document,) = json.loads(run("list", "--json").stdout)
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize(
    "words", [["-"], ["--", "-"], ["-", "--priority", "3"], ["--priority", "3", "-"]]
)
@pytest.mark.parametrize(
    ("data", "command"),
    [
        (b"make test\n", "make test"),
        (b"make test", "make test"),
        (
            b"set -e\nfor x in a b; do\n  echo $x\ndone\n\n",
            "set -e\nfor x in a b; do\n  echo $x\ndone",
        ),
        (b"\xef\xbb\xbfcat \xff", "cat \udcff"),
        (b"#!/bin/sh\n{ echo; }\n", "#!/bin/sh\n{ echo; }"),
        (b"x" * 131_071 + b"\n", "x" * 131_071),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_the_command_is_read(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], data: bytes, command: str
) -> None:
    """A script of several lines is one command; the options may stand anywhere."""
    pipe(monkeypatch, data)
    code, stdout, stderr = run("enqueue", *words)
    assert (code, stderr) == (0, "")
    document = only_job(run)
    assert (document["command"], document["id"]) == (command, stdout.strip())


def test_a_document_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is the argument, it may be longer than a command, and options are for it, too."""
    own = "x" * 500_000
    pipe(monkeypatch, json.dumps({"id": "a", "command": "true", "x_own": own}, indent=1).encode())
    assert run("enqueue", "-", "--priority", "1") == (0, "a\n", "")
    document = only_job(run)
    assert (document["priority"], document["x_own"]) == (1, own)


@pytest.mark.parametrize(
    ("data", "words", "code", "message"),
    [
        (b"", [], 2, f"the command on stdin is empty.{HINT}"),
        (b" \n\n", [], 2, f"the command on stdin is empty.{HINT}"),
        (b"x" * 131_072, [], 65,
         ("the command on stdin has more than 131071 bytes, the most that the kernel takes: put it"
          " into a file, and enqueue a command that runs the file")),
        (b"a\0b", [], 65, "'command' holds a NUL character, which no command can be given"),
        (b'{"command": "a"', [], 65,
         "not a job document: bad JSON: Expecting ',' delimiter: line 1 column 16 (char 15)"),
        (b'[{"command": "a"}]', [], 65,
         "a JSON array is no job; give one object, or the array to --batch"),
        (b"true", ["extra"], 2,
         f"- reads the command from stdin, and takes no other words.{HINT}"),
        (b"true", ["--batch", "-"], 2, f"--batch and a command exclude each other.{HINT}"),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_command_is_refused(  # noqa: PLR0917  (fixtures and cases come by position)
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    words: list[str],
    code: int,
    message: str,
) -> None:
    """Nothing is enqueued, and no store is made."""
    pipe(monkeypatch, data)
    assert run("enqueue", "-", *words) == (code, "", f"Error: {message}\n")
    assert not run.store_dir.exists()


def test_a_dash_among_words_is_a_word(run: Run) -> None:
    """Other programs read their own stdin by it."""
    assert run("enqueue", "--id", "a", "cat", "-") == (0, "a\n", "")
    assert only_job(run)["command"] == "cat -"


@pytest.mark.parametrize(
    ("words", "what"), [(["-"], "the command"), (["--batch", "-"], "the batch")]
)
def test_a_terminal_says_what_is_read(store_dir: Path, words: list[str], what: str) -> None:
    """No prompt, but nobody is to wonder what the program waits for."""
    master, slave = pty.openpty()
    os.write(master, b"make test\n\x04")
    done = subprocess.run(
        [sys.executable, "-m", "queuectl", "enqueue", *words],
        stdin=slave, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    assert done.stderr.decode() == f"reading {what} from the terminal; Ctrl-D ends it\n"
    assert done.returncode == 0
    (path,) = (store_dir / "pending").iterdir()
    assert json.loads(path.read_text())["command"] == "make test"


@pytest.mark.parametrize(
    ("words", "what"), [(["-"], "the command"), (["--batch", "-"], "the batch")]
)
def test_a_closed_stdin_is_said_to_be(store_dir: Path, words: list[str], what: str) -> None:
    """There is nothing to read, and no file of the store is taken for it."""
    command = ["sh", sys.executable, "-m", "queuectl", "enqueue", *words]
    command = ["/bin/sh", "-c", 'exec "$@" <&-', *command]
    done = subprocess.run(command, capture_output=True, check=False)
    message = f"Error: stdin is closed, and {what} cannot be read from it.{HINT}\n"
    assert (done.returncode, done.stderr.decode()) == (2, message)


@pytest.mark.parametrize(
    ("words", "what"), [(["-"], "the command"), (["--batch", "-"], "the batch")]
)
def test_a_stdin_that_cannot_be_read_is_named(
    store_dir: Path, tmp_path: Path, words: list[str], what: str
) -> None:
    """It may be open for writing only, as `0>file` leaves it."""
    command = [sys.executable, "-m", "queuectl", "enqueue", *words]
    with (tmp_path / "file").open("w") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, check=False)
    message = f"Error: {what} cannot be read from stdin: Bad file descriptor\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (74, b"", message)
    assert not store_dir.exists()
