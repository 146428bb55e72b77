"""What ``queuectl enqueue`` prints, refuses and leaves in the store."""

import errno
import io
import json
import os
import pty
import shutil
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing

from queuectl.clock import parse_instant, utc_now
from queuectl.document import USER_KEYS
from queuectl.job import State, check_id

HINT = " Try 'queuectl enqueue --help'."
NOT_AN_ID = "is not an id; use 1 to 100 of A-Z a-z 0-9 . _ -, not starting with a dot or a dash"


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return every path under a directory with its mode and what it holds."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
        if path.name != "pending.lock"  # an empty file that is made when it is first locked
    }


def pending(store_dir: Path) -> list[dict[str, Any]]:
    """Return the documents that are pending, in the order in which they will run."""
    return [json.loads(path.read_bytes()) for path in sorted((store_dir / "pending").iterdir())]


def only_job(store_dir: Path) -> dict[str, Any]:
    """Return the one document that is pending."""
    (document,) = pending(store_dir)
    return document


@pytest.fixture
def jobs_txt(tmp_path: Path) -> Path:
    """Return where a batch is written."""
    return tmp_path / "jobs.txt"


# --- what is printed and stored -----------------------------------------------------------------


def test_an_enqueue_prints_the_id_and_nothing_else(run: Run) -> None:
    """The id on stdout is the id of the job that is pending."""
    code, stdout, stderr = run("enqueue", "sleep 3; echo 'job done'")
    assert (code, stderr) == (0, "")
    document = only_job(run.store_dir)
    assert stdout == check_id(document["id"]) + "\n"
    assert document["command"] == "sleep 3; echo 'job done'"
    assert document["cwd"] == os.getcwd()


def test_options_may_stand_after_the_command(run: Run) -> None:
    """The command comes first where a person thinks of it first."""
    assert run("enqueue", "sleep 3; echo 'job done'", "--id", "sleepy-job") == (
        0,
        "sleepy-job\n",
        "",
    )
    assert only_job(run.store_dir)["command"] == "sleep 3; echo 'job done'"


def test_words_after_dashes_stay_words(run: Run) -> None:
    """Options of the job's command are not those of enqueue."""
    words = ("rsync", "-a", "my files/", "--id", "backup:")
    assert run("enqueue", "--id", "sync", "--", *words) == (0, "sync\n", "")
    assert only_job(run.store_dir)["command"] == "rsync -a 'my files/' --id backup:"


def test_words_need_no_dashes_where_none_looks_like_an_option(run: Run) -> None:
    """Several words are quoted with or without the dashes; a single one is the shell's."""
    assert run("enqueue", "echo", "a b")[0] == 0
    assert run("enqueue", "--", "echo a  b")[0] == 0
    assert [each["command"] for each in pending(run.store_dir)] == ["echo 'a b'", "echo a  b"]


def test_an_option_of_the_command_is_answered_with_how_to_give_it(run: Run) -> None:
    """The first thing that everybody types, ls -l, is told what to do."""
    advice = "if it belongs to the command, quote the command or put -- before it."
    refused = f"Error: No such option '-l'; {advice}{HINT}\n"
    assert run("enqueue", "ls", "-l") == (2, "", refused)
    refused = f"Error: No such option '--priorty'. Did you mean '--priority'?{HINT}\n"
    assert run("enqueue", "ls", "--priorty", "1") == (2, "", refused)


def test_a_document_is_one_argument(run: Run) -> None:
    """The example of the reference works."""
    assert run("enqueue", '{"id":"job1","command":"sleep 2"}') == (0, "job1\n", "")
    assert only_job(run.store_dir)["command"] == "sleep 2"


def test_every_option_goes_into_the_document(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for is what is stored; a named variable has the value that it has now."""
    monkeypatch.setenv("TOKEN", "s=1")
    words = ["--id", "a", "--priority", "0", "--max-retries", "9", "--timeout", "1h30m"]
    words += ["--cwd", str(tmp_path), "--env", "TOKEN", "--env", "EMPTY=", "--env", "X=y=z"]
    assert run("enqueue", *words, "true", "--run-at", "2126-01-02T03:04:05Z") == (0, "a\n", "")
    document = only_job(run.store_dir)
    assert {key: document[key] for key in ("priority", "max_retries", "timeout", "cwd", "env")} == {
        "priority": 0,
        "max_retries": 9,
        "timeout": 5400.0,
        "cwd": str(tmp_path),
        "env": {"TOKEN": "s=1", "EMPTY": "", "X": "y=z"},
    }
    assert os.listdir(run.store_dir / "pending") == ["0-21260102T030405.000000Z-a.json"]


def test_a_relative_directory_is_stored_absolute(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link is kept, as it may be pointed elsewhere; what lies above its end is looked up."""
    (tmp_path / "releases" / "5").mkdir(parents=True)
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "5")
    monkeypatch.chdir(tmp_path)
    for directory in ("current", "current/..", "."):
        run("enqueue", "--cwd", directory, "true")
    assert [each["cwd"] for each in pending(run.store_dir)] == [
        f"{tmp_path}/current",
        f"{tmp_path}/releases",
        f"{tmp_path}",
    ]


def test_a_delay_moves_the_due_time(run: Run) -> None:
    """A delay counts from now, and may be nothing."""
    before = utc_now()
    assert run("enqueue", "--id", "a", "--delay", "0", "true")[0] == 0
    assert run("enqueue", "--id", "b", "--delay", "2h", "true")[0] == 0
    after = utc_now()
    first, second = pending(run.store_dir)
    assert before <= parse_instant(first["run_at"]) <= after
    hours = timedelta(hours=2)
    assert before + hours <= parse_instant(second["run_at"]) <= after + hours


def test_the_limits_come_from_the_config(run: Run) -> None:
    """A job takes the limits of the moment when it is enqueued, and an option goes before them."""
    for key, value in (("max-retries", "7"), ("timeout", "2m"), ("priority", "8")):
        run("config", "set", key, value)
    run("enqueue", "true", "--id", "a", "--priority", "9")
    document = only_job(run.store_dir)
    assert (document["max_retries"], document["timeout"], document["priority"]) == (7, 120.0, 9)


def test_options_are_read_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is not given is what its variable says; those of a running job are others."""
    monkeypatch.setenv("QUEUECTL_ENQUEUE_PRIORITY", "1")
    monkeypatch.setenv("QUEUECTL_MAX_RETRIES", "77")
    monkeypatch.setenv("QUEUECTL_VERSION", "2.0-rc1")
    assert run("enqueue", "true")[0] == 0
    document = only_job(run.store_dir)
    assert (document["priority"], document["max_retries"]) == (1, 3)


def test_a_store_is_made_for_this_user_alone(run: Run) -> None:
    """Directories are 0700 and files 0600 under any umask."""
    umask = os.umask(0)
    try:
        run("enqueue", "true", "--id", "a")
    finally:
        os.umask(umask)
    modes = {
        stat.S_IMODE(path.stat().st_mode) for path in run.store_dir.rglob("*") if path.is_dir()
    }
    assert modes == {0o700}
    modes = {
        stat.S_IMODE(path.stat().st_mode) for path in run.store_dir.rglob("*") if path.is_file()
    }
    assert modes == {0o600}


# --- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--priority", "0"],
        ["--priority", "9"],
        ["--max-retries", "0"],
        ["--max-retries", "1000000"],
        ["--timeout", "0.001s"],
        ["--timeout", "36525d"],
        ["--delay", "36525d"],
        ["--id", "x" * 100],
        ["--run-at", "9999-12-31T23:59:59.999999Z"],
    ],
)
def test_what_is_within_bounds_is_taken(run: Run, words: list[str]) -> None:
    """The least and the most are allowed."""
    assert run("enqueue", "true", *words)[::2] == (0, "")
    assert only_job(run.store_dir)["command"] == "true"


def test_the_earliest_time_is_taken(run: Run) -> None:
    """It is in the past, which is said."""
    note = "--run-at 0001-01-02T00:00Z is in the past: the job is due now\n"
    assert run("enqueue", "--id", "a", "true", "--run-at", "0001-01-02T00:00Z") == (0, "a\n", note)


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
     "--priority and the document of job 'j' disagree; give it in one place"),
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


# --- batches ------------------------------------------------------------------------------------


def test_a_batch_prints_its_ids_in_order(run: Run, jobs_txt: Path) -> None:
    """Lines are jobs, and run in their order."""
    jobs_txt.write_bytes(b'first\n\n{"command": "second", "id": "b"}\r\nthird')
    code, stdout, stderr = run("enqueue", "--batch", str(jobs_txt), "--priority", "3")
    assert (code, stderr) == (0, "")
    documents = pending(run.store_dir)
    assert [each["command"] for each in documents] == ["first", "second", "third"]
    assert {each["priority"] for each in documents} == {3}
    assert stdout == "".join(f"{each['id']}\n" for each in documents)


def test_a_batch_may_come_from_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash is stdin, as for other programs."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\xff\n")))
    assert run("enqueue", "--batch", "-").stdout.count("\n") == 2
    assert [each["command"] for each in pending(run.store_dir)] == ["a", "b\udcff"]


def test_a_large_batch_keeps_its_order(run: Run, jobs_txt: Path) -> None:
    """However many lines there are, pending/ lists them as they stood."""
    jobs_txt.write_text("".join(f"job {number}\n" for number in range(1000)))
    assert run("enqueue", "--batch", str(jobs_txt)).stdout.count("\n") == 1000
    commands = [each["command"] for each in pending(run.store_dir)]
    assert commands == [f"job {number}" for number in range(1000)]


def test_an_empty_batch_is_nothing_to_do(run: Run) -> None:
    """No line is no job, no output and no store."""
    assert run("enqueue", "--batch", "/dev/null") == (0, "", "")
    assert not run.store_dir.exists()


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b'a\n\n{"command": 7}\n', 65, "line 3: 'command' is 7; it must be a string"),
        (b'a\n{"command": }\n', 65,
         "line 2: not a job document: bad JSON: Expecting value: line 1 column 13 (char 12)"),
        (b'{"id": "j", "command": "a"}\n{"id": "j", "command": "b"}\n', 65,
         "line 2: job 'j' stands on line 1 already"),
        (b'a\n{"id": "old", "command": "b"}\n', 65,
         "line 2: job 'old' exists already (pending); choose another id, or use --if-exists skip"),
        (b"a\nb\0c\n", 65,
         "line 2: 'command' holds a NUL character, which no command can be given"),
        (b'a\n["b"]\n', 65, "line 2: an array of jobs holds objects, and not '\"b\"'"),
        (b'a\n{"command": "\xff"}\n', 65, "line 2: not a job document: not UTF-8 at byte 13"),
        (b'a\n{"id": "j", "command": "b", "priority": 2}\n', 2,
         "line 2: --priority and the document of job 'j' disagree; give it in one place"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_a_bad_line_adds_no_job(  # noqa: PLR0917  (fixtures and cases come by position)
    run: Run, place: Placing, jobs_txt: Path, data: bytes, code: int, message: str
) -> None:
    """A batch is added whole or not at all, and the line is named."""
    place.job(State.PENDING, "old")
    jobs_txt.write_bytes(data)
    before = snapshot(run.store_dir)
    answer = run("enqueue", "--batch", str(jobs_txt), "--priority", "1")
    assert answer == (code, "", f"Error: {message}\n")
    assert snapshot(run.store_dir) == before


def test_a_batch_can_skip_what_exists(run: Run, place: Placing, jobs_txt: Path) -> None:
    """For cron: the whole list again adds what is new, and prints every id."""
    place.job(State.COMPLETED, "a")
    jobs_txt.write_text('{"id": "a", "command": "1"}\n{"id": "b", "command": "2"}\n')
    words = ("enqueue", "--batch", str(jobs_txt), "--if-exists", "skip")
    assert run(*words) == (0, "a\nb\n", "")
    assert only_job(run.store_dir)["id"] == "b"
    assert run(*words) == (0, "a\nb\n", "")
    assert only_job(run.store_dir)["id"] == "b"


# --- the world around ---------------------------------------------------------------------------


def queuectl(*words: str, store_dir: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a process of its own."""
    env = {**os.environ, "QUEUECTL_STORE": str(store_dir)}
    command = [sys.executable, "-m", "queuectl", *words]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, env=env, **options)


def test_a_directory_that_is_gone_needs_another(store_dir: Path, tmp_path: Path) -> None:
    """A job cannot be told to run where nothing is."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir "{gone}"; exec "{sys.executable}" -P -m queuectl enqueue true "$@"'
    env = {**os.environ, "QUEUECTL_STORE": str(store_dir)}
    command = ["/bin/sh", "-c", script, "sh"]
    done = subprocess.run(command, cwd=gone, env=env, capture_output=True, check=False)
    message = f"Error: The current directory is gone; give --cwd.{HINT}\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", message)
    gone.mkdir()
    done = subprocess.run(
        [*command, "--cwd", "/"], cwd=gone, env=env, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_id_that_cannot_be_printed_is_in_the_message(store_dir: Path) -> None:
    """A full disk behind stdout, or a closed one, is an error, and the id is not lost."""
    with open("/dev/full", "wb") as full:
        done = queuectl("enqueue", "true", "--id", "a", store_dir=store_dir, stdout=full)
    assert done.returncode == 74
    assert done.stderr.decode() == (
        "Error: the id cannot be printed (No space left on device), but the job is in the queue:"
        " a\n"
    )
    done = queuectl(
        "enqueue", "true", "--id", "b", store_dir=store_dir, preexec_fn=lambda: os.close(1)
    )
    assert done.returncode == 74
    assert done.stderr.decode().endswith("but the job is in the queue: b\n")
    with open("/dev/full", "wb") as full:
        done = queuectl(
            "enqueue", "--batch", "-", store_dir=store_dir, stdout=full,
            input=b'{"id": "c", "command": "true"}\n{"id": "d", "command": "true"}\n',
        )  # fmt: skip
    assert done.stderr.decode() == (
        "Error: the ids cannot be printed (No space left on device), but the jobs are in the"
        " queue: c d\n"
    )
    assert len(pending(store_dir)) == 4


def test_a_full_disk_is_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the document cannot be written nothing is enqueued, and the store is named."""
    assert run("enqueue", "true")[0] == 0
    before = snapshot(run.store_dir)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    code, stdout, stderr = run("enqueue", "true")
    assert (code, stdout) == (74, "")
    assert stderr.startswith(f"Error: {run.store_dir}")
    assert stderr.endswith("No space left on device\n")
    assert stderr.count("\n") == 1
    assert snapshot(run.store_dir) == before


def test_a_store_that_is_a_file_cannot_be_used(run: Run) -> None:
    """A file where the store should be is left alone."""
    run.store_dir.write_text("mine")
    assert run("enqueue", "true") == (
        69,
        "",
        f"Error: the store {run.store_dir} cannot be used: Not a directory\n",
    )
    assert run.store_dir.read_text() == "mine"


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_store_that_others_can_write_to_is_refused(run: Run, place: Placing, mode: int) -> None:
    """Whoever can write into a store runs commands, so nothing is added to one that is open."""
    run.store_dir.chmod(mode)
    before = snapshot(run.store_dir)
    answer = run("enqueue", "true")
    path = run.store_dir
    refused = f"Error: {path} can be written to by others (mode {mode:04o}): chmod 700 {path}\n"
    assert answer == (77, "", refused)
    assert snapshot(run.store_dir) == before


def without_root_rights(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program as somebody whom the modes of files hold back; root is made so, too."""
    command = [sys.executable, "-m", "queuectl", *words]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root can write everywhere, and there is no setpriv to hold it back")
        bounds = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={bounds}", *command]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.parametrize("name", ["tmp", "pending"])
def test_a_store_that_cannot_be_written_is_told(run: Run, place: Placing, name: str) -> None:
    """A store without the right to write is an I/O error that names it, and stays what it was."""
    before = snapshot(run.store_dir)
    (run.store_dir / name).chmod(0o500)
    done = without_root_rights("--store", str(run.store_dir), "enqueue", "true")
    (run.store_dir / name).chmod(0o700)
    message = f"Error: {run.store_dir}: nothing is enqueued: Permission denied\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (74, b"", message)
    assert snapshot(run.store_dir) == before


def test_a_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A place where no store can be made is one that cannot be reached."""
    (tmp_path / "closed").mkdir(mode=0o500)
    done = without_root_rights("--store", str(tmp_path / "closed" / "q"), "enqueue", "true")
    message = f"Error: {tmp_path}/closed/q cannot be made: Permission denied\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (69, b"", message)
    assert not list((tmp_path / "closed").iterdir())


def test_a_terminal_sees_a_progress_bar_and_a_pipe_does_not(
    store_dir: Path, jobs_txt: Path
) -> None:
    """The bar is on stderr, so that stdout holds ids alone."""
    jobs_txt.write_text("a\nb\n")
    leader, follower = pty.openpty()
    try:
        env = {**os.environ, "QUEUECTL_STORE": str(store_dir), "TERM": "xterm"}
        done = subprocess.run(
            [sys.executable, "-m", "queuectl", "enqueue", "--batch", str(jobs_txt)],
            check=True,
            env=env,
            stdout=subprocess.PIPE,
            stderr=follower,
        )
        os.close(follower)
        shown = os.read(leader, 65536)
    finally:
        os.close(leader)
    assert b"100%" in shown
    assert done.stdout.count(b"\n") == 2
    done = queuectl(
        "enqueue", "--batch", str(jobs_txt), store_dir=store_dir, stdout=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_id_that_looks_like_another_is_refused(run: Run) -> None:
    """Where the file system does not tell them apart: one line, and nothing is added."""
    assert run("enqueue", "true", "--id", "Job").exit_code == 0
    (run.store_dir / "PENDING").symlink_to("pending")  # as one name is found under the other there
    told = "Error: this file system does not tell job 'job' from job 'Job'; choose another id\n"
    assert run("enqueue", "true", "--id", "job") == (65, "", told)
    assert run("enqueue", "true", "--id", "job", "--if-exists", "skip") == (65, "", told)
