"""What ``queuectl list`` prints."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import attempt

from queuectl.clock import utc_now
from queuectl.job import Outcome, State
from queuectl.store.directory import DirectoryStore
from queuectl.store.entries import Entries


def ids(stdout: str) -> list[str]:
    """Return the ids of a JSON list."""
    return [document["id"] for document in json.loads(stdout)]


def ahead(seconds: float) -> datetime:
    """Return an instant that is ``seconds`` from now."""
    return utc_now() + timedelta(seconds=seconds)


def test_an_absent_store_is_an_empty_queue_and_stays_absent(run: Run) -> None:
    """Looking at a store that is not there shows nothing and makes nothing."""
    assert run("list") == (0, "", "no jobs\n")
    assert run("list", "--json") == (0, "[]\n", "")
    assert not run.store_dir.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("list",), "no jobs"),
        (("list", "--state", "pending"), "no pending jobs"),
        (("list", "--state", "dead", "--state", "dead"), "no dead jobs"),
        (("list", "--state", "dead", "--state", "completed"), "no dead or completed jobs"),
        (
            ("list", "--state", "dead", "--state", "blocked", "--state", "cancelled"),
            "no dead, blocked or cancelled jobs",
        ),
        (("list", "--command-matches", "x"), "no jobs match"),
        (("list", "--command-matches", "x", "--state", "dead"), "no dead jobs match"),
        (("dlq", "list"), "no dead jobs"),
        (("dlq", "retry", "--all"), "no dead jobs"),
        (("dlq", "retry", "--all", "--matching", "x"), "no dead jobs match"),
        (("worker", "list"), "no workers are running"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_nothing_is_said_to_be_nothing(run: Run, words: tuple[str, ...], told: str) -> None:
    """Where there is nothing to list, no header stands alone, and stderr says what there is not."""
    assert run(*words) == (0, "", f"{told}\n")


def test_the_table_shows_each_state_in_80_columns(run: Run, place: Placing) -> None:
    """What runs comes first, then what waits, then what is finished, the newest first."""
    done = attempt("old", outcome=Outcome.SUCCEEDED, exit_code=0)
    place.job(State.COMPLETED, "old", ago=7300, history=(done,))
    place.dead("bad", ago=65)
    place.job(State.PENDING, "later", run_at=ahead(1800), attempts=1)
    place.job(State.PENDING, "next", priority=0, command="echo 'a\tb'\necho \x1b[31m")
    place.job(State.PROCESSING, "busy", ago=3)
    code, stdout, stderr = run("list")
    assert (code, stderr) == (0, "")
    assert stdout.replace("29m59s", "30m") == (
        "ID     STATE       PRI  ATTEMPTS  WHEN      COMMAND\n"
        "busy   processing  5    1/3       3s ago    run busy\n"
        "next   pending     0    0/3       due       echo 'a\\tb'\\necho \\x1b[31m\n"
        "later  pending     5    1/3       in 30m    run later\n"
        "bad    dead        5    3/3       1m5s ago  run bad\n"
        "old    completed   5    1/3       2h1m ago  run old\n"
    )


def test_json_is_the_documents_and_the_directory_says_the_state(run: Run, place: Placing) -> None:
    """A document that a hand has moved is shown where it lies, with all that it holds."""
    path = place.job(State.COMPLETED, "moved", env={"A": "ü"}, extra={"note": [1]})
    path.rename(place.store_dir / "cancelled" / "moved.json")
    code, stdout, stderr = run("list", "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout) == [
        {
            "schema": 1,
            "id": "moved",
            "command": "run moved",
            "state": "cancelled",
            "priority": 5,
            "attempts": 0,
            "max_retries": 3,
            "timeout": None,
            "cwd": "/srv",
            "env": {"A": "ü"},
            "after": [],
            "after_any": [],
            "created_at": "2026-01-02T12:00:00.250000Z",
            "updated_at": "2026-01-02T12:00:00.250000Z",
            "run_at": "2026-01-02T12:00:00.250000Z",
            "history": [],
            "note": [1],
        }
    ]


def test_pending_jobs_come_in_the_order_of_running(run: Run, place: Placing) -> None:
    """Due ones go by priority, time and id; those after them by time, priority and id."""
    soon, late = ahead(500), ahead(1000)
    place.job(State.PENDING, "due-9", priority=9, run_at=ahead(-3000))
    place.job(State.PENDING, "due-5-b", run_at=ahead(-10))
    place.job(State.PENDING, "due-5-a", run_at=ahead(-20))
    place.job(State.PENDING, "late-0", priority=0, run_at=late)
    place.job(State.PENDING, "soon-7-b", priority=7, run_at=soon)
    place.job(State.PENDING, "soon-7-a", priority=7, run_at=soon)
    place.job(State.PENDING, "soon-2", priority=2, run_at=soon)
    expected = ["due-5-a", "due-5-b", "due-9", "soon-2", "soon-7-a", "soon-7-b", "late-0"]
    assert ids(run("list", "--json").stdout) == expected
    assert ids(run("list", "--json", "--limit", "4").stdout) == expected[:4]
    assert ids(run("list", "--json", "--reverse", "--limit", "4").stdout) == expected[:2:-1]


def test_finished_jobs_of_all_states_come_newest_first(run: Run, place: Placing) -> None:
    """The time of a change decides, not the state."""
    place.job(State.COMPLETED, "first", ago=30)
    place.dead("second", ago=20)
    place.job(State.COMPLETED, "third", ago=10)
    assert ids(run("list", "--json").stdout) == ["third", "second", "first"]
    assert ids(run("list", "--json", "--limit", "2").stdout) == ["third", "second"]


def test_states_choose_and_case_does_not_matter(run: Run, place: Placing) -> None:
    """--state can be repeated, in any case."""
    place.job(State.PENDING, "waits")
    place.job(State.COMPLETED, "done")
    place.dead("bad", ago=60)
    result = run("list", "--json", "--state", "DEAD", "--state", "completed")
    assert ids(result.stdout) == ["done", "bad"]


def test_an_unknown_state_is_a_usage_error_that_lists_them(run: Run) -> None:
    """Nothing is printed for a state that does not exist."""
    assert run("list", "--state", "lost") == (
        2,
        "",
        (
            "Error: Invalid value for '--state': 'lost' is not one of 'blocked', 'pending',"
            " 'processing', 'completed', 'dead', 'cancelled'. Try 'queuectl list --help'.\n"
        ),
    )


def test_a_table_stops_at_100_and_says_how_many_more(run: Run, place: Placing) -> None:
    """What is left out is counted on stderr; JSON and --limit leave nothing out."""
    for number in range(103):
        place.job(State.PENDING, f"j-{number:03}")
    code, stdout, stderr = run("list")
    assert (code, stderr) == (0, "3 more; --limit or --json shows them\n")
    assert run("list", "--command-matches", "j-0|j-100").stderr == (
        "1 more; --limit or --json shows it\n"
    )
    assert [line.split()[0] for line in stdout.splitlines()[1:]] == [
        f"j-{number:03}" for number in range(100)
    ]
    assert run("list", "--command-matches", "j-0").stderr == ""
    assert run("list", "--command-matches", "run").stderr == stderr
    code, stdout, stderr = run("list", "--limit", "102")
    assert (code, len(stdout.splitlines()), stderr) == (0, 103, "")
    assert len(ids(run("list", "--json").stdout)) == 103


def test_a_full_table_that_leaves_nothing_out_says_nothing(run: Run, place: Placing) -> None:
    """Of exactly 100 jobs, none is left out."""
    for number in range(100):
        place.job(State.PENDING, f"j-{number:03}")
    assert run("list").stderr == ""


@pytest.mark.parametrize("options", [(), ("--sort", "id"), ("--command-matches", "run")])
def test_a_limit_opens_only_what_it_prints(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """However many jobs there are, as many documents are read as lines are printed."""
    for number in range(20):
        place.job(State.PENDING, f"j-{number:02}")
    opened: list[str] = []
    read = DirectoryStore.read

    def counting(self: DirectoryStore, entry: Any) -> Any:
        opened.append(entry.id)
        return read(self, entry)

    monkeypatch.setattr(DirectoryStore, "read", counting)
    run("list", "--limit", "3", *options)
    assert sorted(set(opened)) == ["j-00", "j-01", "j-02"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("id", ["a", "b", "c", "d"]),
        ("state", ["b", "a", "c", "d"]),
        ("priority", ["c", "a", "b", "d"]),
        ("run-at", ["a", "c", "d", "b"]),
        ("created", ["d", "a", "b", "c"]),
        ("updated", ["c", "a", "b", "d"]),
        ("attempts", ["a", "b", "d", "c"]),
        ("command", ["b", "d", "c", "a"]),
    ],
)
def test_sort_orders_by_a_key_then_by_id(
    run: Run, place: Placing, key: str, expected: list[str]
) -> None:
    """Each key sorts upwards, whole or with a limit, and --reverse turns that round."""
    early, late = ahead(-9e6), ahead(9e6)
    place.job(State.PENDING, "a", command="z")
    place.job(State.PROCESSING, "b", run_at=late, command="a")
    place.job(State.COMPLETED, "c", priority=1, updated_at=early - timedelta(days=900), command="y")
    place.dead("d", priority=9, runs=0, created_at=early - timedelta(days=900), command="b")
    if key == "attempts":
        place.job(State.COMPLETED, "c", attempts=2)
    chosen = ("list", "--json", "--sort", key)
    assert ids(run(*chosen).stdout) == expected
    assert ids(run(*chosen, "--limit", "2").stdout) == expected[:2]
    assert ids(run(*chosen, "--reverse").stdout) == expected[::-1]
    assert ids(run(*chosen, "--reverse", "--limit", "2").stdout) == expected[:1:-1]


def test_commands_are_searched_with_a_regular_expression(run: Run, place: Placing) -> None:
    """--command-matches finds anywhere in the command, and limits what is found."""
    place.job(State.PENDING, "one", command="rsync -a x y", run_at=ahead(-30))
    place.job(State.PENDING, "two", command="echo; rsync z", run_at=ahead(-20))
    place.job(State.PENDING, "three", command="true", run_at=ahead(-10))
    assert ids(run("list", "--json", "--command-matches", "rsync").stdout) == ["one", "two"]
    assert ids(run("list", "--json", "--command-matches", "^rsync").stdout) == ["one"]
    result = run("list", "--json", "--command-matches", "t|z", "--limit", "1")
    assert ids(result.stdout) == ["two"]


def test_a_bad_regular_expression_is_a_usage_error(run: Run) -> None:
    """The message says what is wrong with it."""
    assert run("list", "--command-matches", "(") == (
        2,
        "",
        (
            "Error: Invalid value for '--command-matches': '(' is not a regular expression:"
            " missing ), unterminated subpattern at position 0. Try 'queuectl list --help'.\n"
        ),
    )


def test_a_document_that_cannot_be_read_is_shown_as_such(run: Run, place: Placing) -> None:
    """One broken file neither ends the list nor hides the rest."""
    broken = place.dead("broken", ago=5)
    broken.write_text("{")
    place.age(broken, 5)
    newer = place.job(State.PENDING, "newer")
    newer.write_text(newer.read_text().replace('"schema": 1', '"schema": 2'))
    place.job(State.COMPLETED, "fine", ago=9)
    code, stdout, stderr = run("list")
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "newer", "broken", "fine"]
    assert "(unreadable: the document of job newer has schema 2" in lines[1]
    assert f"(unreadable: {broken}: not a job document" in lines[2]
    documents = json.loads(run("list", "--json", "--sort", "attempts").stdout)
    assert [document["id"] for document in documents] == ["fine", "broken", "newer"]
    assert list(documents[1]) == ["id", "state", "unreadable"]


def test_a_job_that_moves_on_meanwhile_is_listed_once_where_it_is(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a job is claimed, and one completed, between the look at two directories."""
    waiting = place.job(State.PENDING, "claimed")
    running = place.job(State.PROCESSING, "done")
    entries = Entries.entries

    def moving(self: Entries, state: State, *args: Any) -> Any:
        found = entries(self, state, *args)
        if state is State.PENDING:
            waiting.rename(place.store_dir / "processing" / "claimed.1.json")
        if state is State.PROCESSING:
            running.rename(place.store_dir / "completed" / "done.json")
        return found

    monkeypatch.setattr(Entries, "entries", moving)
    documents = json.loads(run("list", "--json").stdout)
    assert [(each["id"], each["state"]) for each in documents] == [
        ("claimed", "processing"),
        ("done", "completed"),
    ]


def test_a_job_that_leaves_before_it_is_read_is_found_again_or_left_out(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: between the look at the directory and at the document one job moves, another goes."""
    moved = place.job(State.COMPLETED, "moved", ago=1, history=(attempt("moved"),))
    gone = place.job(State.COMPLETED, "gone", ago=2)
    read = DirectoryStore.read

    def moving(self: DirectoryStore, entry: Any) -> Any:
        if moved.exists():
            moved.rename(place.store_dir / "dead" / "moved.json")
            gone.unlink()
        return read(self, entry)

    monkeypatch.setattr(DirectoryStore, "read", moving)
    documents = json.loads(run("list", "--json").stdout)
    assert [(each["id"], each["state"]) for each in documents] == [("moved", "dead")]


def test_a_limit_below_one_is_a_usage_error(run: Run) -> None:
    """There is no such thing as a list of no job."""
    assert run("list", "--limit", "0") == (
        2,
        "",
        (
            "Error: Invalid value for '--limit': '0' must be a whole number of 1 or more. Try"
            " 'queuectl list --help'.\n"
        ),
    )


def test_the_environment_names_options_as_the_command_line_does(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUEUECTL_LIST_STATE is --state of list, and QUEUECTL_LIST_JSON its --json."""
    run("enqueue", "--id", "job", "true")
    monkeypatch.setenv("QUEUECTL_LIST_STATE", "dead")
    monkeypatch.setenv("QUEUECTL_LIST_JSON", "1")
    assert run("list") == (0, "[]\n", "")
