"""What ``queuectl enqueue`` refuses, with its exit code and line, and leaves as it was."""

import pytest
from tests.cli.conftest import Run
from tests.cli.documents import HINT, snapshot
from tests.cli.placing import Placing

from queuectl.job import State
from queuectl.submit import USER_KEYS

NOT_AN_ID = "is not an id; use 1 to 100 of A-Z a-z 0-9 . _ -, not starting with a dot or a dash"


DURATION = "is not a duration; write 90, 90s, 15m, 2h, 7d or 1h30m."


WHOLE = "must be a whole number from"


BOUNDS = "is out of bounds; a duration is above 0 and up to 100 years."


DELAY_BOUNDS = "is out of bounds; a delay is from 0 to 100 years."


INSTANT = (
    "is not an instant; write 02:30, 2:30pm, noon, midnight, 'tomorrow 06:00', 'sat 03:00',"
    " '2026-12-01 02:30', 'now + 2 hours', or ISO 8601 such as 2026-11-24T20:30:00Z."
)


NO_ARRAY = "a JSON array is no job; give one object, or the array to --batch"


BAD_JSON = "not a job document: bad JSON: "


# The words after `enqueue`, the exit code, and the line on stderr after `Error: `.
BAD: list[tuple[list[str], int, str]] = [
    # ids
    (["true", "--id", "../x"], 65, f"'../x' {NOT_AN_ID}"),
    (["true", "--id", "a/b"], 65, f"'a/b' {NOT_AN_ID}"),
    (["true", "--id", ""], 65, f"'' {NOT_AN_ID}"),
    (["true", "--id", ".x"], 65, f"'.x' {NOT_AN_ID}"),
    (["true", "--id", "-x"], 65, f"'-x' {NOT_AN_ID}"),
    (["true", "--id", "a\nb"], 65, rf"'a\nb' {NOT_AN_ID}"),
    (["true", "--id", "x" * 101], 65, f"'{'x' * 55}...' {NOT_AN_ID}"),
    (['{"id": "../x", "command": "true"}'], 65, f"'../x' {NOT_AN_ID}"),
    # documents
    (['{"command": }'], 65, BAD_JSON + "Expecting value: line 1 column 13 (char 12)"),
    (['{"command": "a", "priority": NaN}'], 65, BAD_JSON + "NaN is not JSON"),
    (['{"command": "a", "id": 7}'], 65, "'id' is 7; it must be a string"),
    (['{"command": ["ls"]}'], 65, "'command' is ['ls']; it must be a string"),
    (['{"command": "a", "priority": 10}'], 65,
     "'priority' is 10; it must be a whole number from 0 to 9"),
    (['{"command": "a", "max_retries": 1000001}'], 65,
     "'max_retries' is 1000001; it must be a whole number from 0 to 1000000"),
    (['{"command": "a", "comand": "b"}'], 65,
     ("'comand' is not a key that can be chosen; did you mean 'command'? Those are"
      f" {', '.join(USER_KEYS)}, and any of your own that begins with x_")),
    (['{"command": "a\\u0000b"}'], 65,
     "'command' holds a NUL character, which no command can be given"),
    (['{"command": ""}'], 65, "the command is empty"),
    (['{"id": "a"}'], 65, "'command' is missing"),
    (['[{"command": "a"}]'], 65,
     NO_ARRAY),
    (['{"command": "a"}', "b"], 2,
     "a job document must be the only argument; use --batch for several"),
    (["--priority", "1", '{"command": "a", "id": "j", "priority": 2}'], 2,
     "--priority conflicts with the job document of 'j'; specify it only once"),
    # commands
    ([""], 2, "the command is empty"),
    ([" \n"], 2, "the command is empty"),
    ([], 2, f"Missing command: give one, - for stdin, or --batch FILE.{HINT}"),
    (["--"], 2, f"Missing command: give one, - for stdin, or --batch FILE.{HINT}"),
    (["x" * 131_072], 65,
     ("the command has 131072 bytes; 131071 is the most that the kernel takes: put it into a"
      " script")),
    # options
    (["true", "--priority", "10"], 2,
     f"Invalid value for '--priority': '10' {WHOLE} 0 to 9.{HINT}"),
    (["true", "--priority", "high"], 2,
     f"Invalid value for '--priority': 'high' {WHOLE} 0 to 9.{HINT}"),
    (["true", "--max-retries", "-1"], 2,
     f"Invalid value for '--max-retries': '-1' {WHOLE} 0 to 1000000.{HINT}"),
    (["true", "--max-retries", "1000001"], 2,
     f"Invalid value for '--max-retries': '1000001' {WHOLE} 0 to 1000000.{HINT}"),
    (["true", "--timeout", "0"], 2, f"Invalid value for '--timeout': '0' {BOUNDS}{HINT}"),
    (["true", "--timeout", "soon"], 2, f"Invalid value for '--timeout': 'soon' {DURATION}{HINT}"),
    (["true", "--timeout", "36526d"], 2, f"Invalid value for '--timeout': '36526d' {BOUNDS}{HINT}"),
    (["true", "--delay", "-1"], 2, f"Invalid value for '--delay': '-1' {DURATION}{HINT}"),
    (["true", "--delay", "36526d"], 2,
     f"Invalid value for '--delay': '36526d' {DELAY_BOUNDS}{HINT}"),
    (["true", "--run-at", "tomorrow"], 2,
     ("Invalid value for '--run-at': 'tomorrow' lacks the time of day; write 'tomorrow 06:00'."
      f"{HINT}")),
    (["true", "--run-at", "2026-02-30"], 2,
     f"Invalid value for '--run-at': '2026-02-30' {INSTANT}{HINT}"),
    (["true", "--delay", "1", "--run-at", "2126-01-01"], 2,
     f"--delay and --run-at exclude each other.{HINT}"),
    (["true", "--cwd", "/nowhere"], 2,
     f"Invalid value for '--cwd': Directory '/nowhere' does not exist.{HINT}"),
    (["true", "--env", "NO_SUCH_VARIABLE"], 2,
     f"Invalid value for '--env': NO_SUCH_VARIABLE is not set; write NAME=VALUE.{HINT}"),
    (["true", "--env", "=x"], 2,
     f"Invalid value for '--env': '' is not the name of an environment variable.{HINT}"),
    (["true", "--env", "A-B=x"], 2,
     f"Invalid value for '--env': 'A-B' is not the name of an environment variable.{HINT}"),
    (["true", "--if-exists", "ask"], 2,
     f"Invalid value for '--if-exists': 'ask' is not one of 'fail', 'skip'.{HINT}"),
    (["true", "--batch", "/nowhere"], 2,
     f"Invalid value for '--batch': '/nowhere': No such file or directory.{HINT}"),
    (["true", "--batch", "/dev/null"], 2, f"--batch and a command exclude each other.{HINT}"),
    (["--id", "a", "--batch", "/dev/null"], 2,
     f"--id is for one job; in a batch, write it into each line.{HINT}"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "message"), BAD, ids=lambda value: repr(value)[:40])
def test_bad_input_changes_nothing(
    run: Run, place: Placing, words: list[str], code: int, message: str
) -> None:
    """Each mistake has its exit code and one line, and the store is byte for byte what it was."""
    place.job(State.PENDING, "old")
    before = snapshot(run.store_dir)
    assert run("enqueue", *words) == (code, "", f"Error: {message}\n")
    assert snapshot(run.store_dir) == before


def test_bad_input_makes_no_store(run: Run) -> None:
    """The first enqueue on a machine, mistyped, leaves nothing behind."""
    assert run("enqueue", '{"command": 7}').exit_code == 65
    assert not run.store_dir.exists()


@pytest.mark.parametrize("state", [state for state in State if state is not State.BLOCKED])
def test_a_duplicate_id_is_refused_in_every_state(run: Run, place: Placing, state: State) -> None:
    """An id is taken for as long as its job is anywhere; skip prints it and adds nothing."""
    place.job(state, "taken")
    before = snapshot(run.store_dir)
    advice = "choose another id, or use --if-exists skip"
    refused = (65, "", f"Error: job 'taken' exists already ({state}); {advice}\n")
    assert run("enqueue", "true", "--id", "taken") == refused
    assert run("enqueue", '{"command": "true", "id": "taken"}') == refused
    skipped = run("enqueue", "true", "--id", "taken", "--if-exists", "skip")
    assert skipped == (0, "taken\n", "")
    assert snapshot(run.store_dir) == before


def test_an_id_that_looks_like_another_is_refused(run: Run) -> None:
    """Where the file system does not tell them apart: one line, and nothing is added."""
    assert run("enqueue", "true", "--id", "Job").exit_code == 0
    (run.store_dir / "PENDING").symlink_to("pending")  # as one name is found under the other there
    told = (
        "Error: this file system cannot distinguish job 'job' from job 'Job'; choose another id\n"
    )
    assert run("enqueue", "true", "--id", "job") == (65, "", told)
    assert run("enqueue", "true", "--id", "job", "--if-exists", "skip") == (65, "", told)
