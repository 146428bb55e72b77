"""What ``queuectl enqueue`` prints, refuses and leaves in the store."""

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.documents import HINT, only_job, pending

from queuectl.clock import parse_instant, utc_now
from queuectl.job import check_id

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


def test_a_bad_value_in_the_environment_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error says which variable holds it, and does not blame an option that nobody gave."""
    monkeypatch.setenv("QUEUECTL_ENQUEUE_PRIORITY", "x")
    bad = "'x' must be a whole number from 0 to 9"
    code, _, stderr = run("enqueue", "true")
    assert code == 2
    assert stderr.startswith(f"Error: Invalid value for $QUEUECTL_ENQUEUE_PRIORITY: {bad}")
    code, _, stderr = run("enqueue", "true", "--priority", "x")
    assert stderr.startswith(f"Error: Invalid value for '--priority': {bad}")


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
    note = "--run-at 0001-01-02T00:00Z is in the past, and so due now\n"
    assert run("enqueue", "--id", "a", "true", "--run-at", "0001-01-02T00:00Z") == (0, "a\n", note)
