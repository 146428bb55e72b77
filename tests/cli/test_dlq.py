"""What the ``queuectl dlq`` commands print and do."""

import json
import os
import re

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import attempt

from queuectl.job import Outcome, State
from queuectl.store.directory import DirectoryStore


def names(place: Placing, state: State) -> list[str]:
    """Return the ids that a state's directory holds; a pending name without its prefix."""
    found = [
        re.sub(r"^\d-\w+\.\w+-", "", path.stem) for path in (place.store_dir / state).iterdir()
    ]
    return sorted(found)


def test_an_absent_store_has_no_dead_jobs_and_stays_absent(run: Run) -> None:
    """Looking, retrying all and purging make no store."""
    assert run("dlq", "list") == (0, "", "no dead jobs\n")
    assert run("dlq", "list", "--json") == (0, "[]\n", "")
    assert run("dlq", "retry", "--all") == (0, "", "no dead jobs\n")
    assert run("dlq", "purge") == (0, "0 jobs purged\n", "")
    assert not run.store_dir.exists()


def test_list_says_when_and_why_newest_first(run: Run, place: Placing) -> None:
    """Only dead jobs are listed; one that never ran has no reason, a broken one shows why."""
    place.dead("first", ago=30)
    place.log("first", 2, b"of an earlier attempt\n")
    place.log("first", 3, b"begin\n10%\r20%\rno \x1b[31mspace\n\n  \n")
    killed = attempt("second", 4, outcome=Outcome.SIGNALLED, signal=11, exit_code=None)
    place.dead("second", ago=20, max_retries=0, attempts=1, history=(killed,))
    place.dead("third", runs=0, ago=10)
    broken = place.dead("fourth")
    broken.write_text("[]")
    place.age(broken, 5)
    place.job(State.COMPLETED, "fine")
    unreadable = f"(unreadable: {broken}: not a job document: not a JSON object)"
    width = len(unreadable)
    assert run("dlq", "list") == (
        0,
        (
            f"ID      WHEN     WHY      ATTEMPTS  {'COMMAND':{width}}  LAST LINE\n"
            f"fourth  5s ago                      {unreadable}\n"
            "third   10s ago           0/3       run third\n"
            "second  20s ago  SIGSEGV  1/1       run second\n"
            f"first   30s ago  exit 3   3/3       {'run first':{width}}  no space\n"
        ),
        "",
    )
    documents = json.loads(run("dlq", "list", "--json", "--limit", "3").stdout)
    assert [each["id"] for each in documents] == ["fourth", "third", "second"]
    assert documents[2]["history"][0]["signal"] == 11


def test_list_stops_at_100_and_says_how_many_more(run: Run, place: Placing) -> None:
    """As every table does; JSON leaves nothing out."""
    for number in range(102):
        place.dead(f"j-{number}")
    code, stdout, stderr = run("dlq", "list")
    assert (code, len(stdout.splitlines()), stderr) == (
        0,
        101,
        "2 more; --limit or --json shows them\n",
    )
    assert len(json.loads(run("dlq", "list", "--json").stdout)) == 102
    assert len(run("dlq", "list", "--limit", "101").stdout.splitlines()) == 102


def test_show_is_for_dead_jobs(run: Run, place: Placing) -> None:
    """A dead job is shown as show does, by a prefix too; one that is not dead is refused."""
    place.dead("bad-1")
    place.job(State.COMPLETED, "fine")
    code, stdout, stderr = run("dlq", "show", "bad")
    assert (code, stderr) == (0, "")
    assert stdout == run("show", "bad-1").stdout + "\nEND OF THE LOG OF ATTEMPT 3\n(deleted)\n"
    assert run("dlq", "show", "bad-1", "--json") == run("show", "bad-1", "--json")
    assert run("dlq", "show", "fine") == (
        65,
        "",
        "Error: job fine is completed, not dead; see 'queuectl dlq list'\n",
    )
    assert run("dlq", "show", "nope") == (66, "", "Error: no such job: nope\n")


def test_show_ends_with_the_end_of_the_last_log(run: Run, place: Placing) -> None:
    """Ten lines at most, harmless for a terminal, and none of a log without end before them."""
    place.dead("bad-1", runs=2)
    place.log("bad-1", 1, b"of an earlier attempt\n")
    place.log("bad-1", 2, b"x" * 100_000 + b"\n" + b"".join(b"line %d\n" % n for n in range(12)))
    place.log("bad-1", 2, b"a\tb\x1b[0m\x1b[2J\r\n \x1b[31m \x1b[0m\r\n")
    lines = run("dlq", "show", "bad-1").stdout.splitlines()
    assert lines[-11:] == [
        "END OF THE LOG OF ATTEMPT 2",
        *(f"line {number}" for number in range(3, 12)),
        "a\tb\\x1b[2J",
    ]


def test_the_last_line_of_a_progress_bar_is_its_last_state(run: Run, place: Placing) -> None:
    """However often it was drawn over, and what was there before it is not lost by that."""
    place.dead("bad-1", runs=1)
    bar = b"".join(b"\r\x1b[2K\x1b[32m%3d%%|%s\x1b[0m|" % (n, "█".encode() * n) for n in range(101))
    place.log("bad-1", 1, b"before\n" + bar + b"\rstopped \x1b[K")
    assert run("dlq", "list").stdout.endswith("  stopped\n")
    lines = run("dlq", "show", "bad-1").stdout.splitlines()
    assert lines[-2:] == ["before", "stopped "]
    place.log("bad-1", 1, bar * 10)  # no more than its end is read
    assert run("dlq", "list").stdout.endswith(f"  100%|{'█' * 100}|\n")
    assert run("dlq", "show", "bad-1").stdout.endswith(f"\n100%|{'█' * 100}|\n")


def test_a_log_without_output_is_told_from_one_that_was_deleted(run: Run, place: Placing) -> None:
    """The first says something about the command, the second nothing."""
    place.dead("bad-1", runs=1)
    path = place.log("bad-1", 1, b"")
    assert run("dlq", "show", "bad-1").stdout.endswith("OF ATTEMPT 1\n(nothing)\n")
    path.unlink()
    assert run("dlq", "show", "bad-1").stdout.endswith("OF ATTEMPT 1\n(deleted)\n")


def test_a_log_of_one_endless_line_shows_its_end(run: Run, place: Placing) -> None:
    """It is not read from its start."""
    place.dead("bad-1", runs=1)
    place.log("bad-1", 1, b"x" * 100_000 + b"the end")
    last = run("dlq", "show", "bad-1").stdout.splitlines()[-1]
    assert last.endswith("xthe end")
    assert len(last) < 10_000


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_no_log_is_not_read(run: Run, place: Placing, kind: str) -> None:
    """Neither followed nor waited for, and the list goes on without it."""
    place.dead("bad-1", runs=1)
    path = place.log("bad-1", 1, b"")
    path.unlink()
    if kind == "symlink":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    code, stdout, stderr = run("dlq", "list")
    assert (code, stderr) == (0, "")
    assert stdout.splitlines()[1].endswith("  exit 3  1/3       run bad-1")


def test_a_terminal_of_80_columns_shows_each_job_on_one_line(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command and the last line share what the rest leaves; what is short stays whole."""
    place.dead("nkkca041k11w5pecjb", ago=90061, command="x" * 200)
    place.log("nkkca041k11w5pecjb", 3, b"y" * 200)
    place.dead("8fz5jey1k11w5q1f50", ago=5, command="true")
    place.log("8fz5jey1k11w5q1f50", 3, b"z" * 15)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    _, stdout, _ = run("dlq", "list")
    assert [len(line) for line in stdout.splitlines()] == [74, 80, 80]
    assert "..." in stdout.splitlines()[1] + stdout.splitlines()[2]


def test_retry_sends_back_and_prints_the_ids(run: Run, place: Placing) -> None:
    """The attempts are 0 again, the history is kept; an id that stands twice is retried once."""
    place.dead("bad-1")
    place.dead("bad-2")
    place.dead("bad-3")
    assert run("dlq", "retry", "bad-2", "bad-1", "bad-2") == (0, "bad-2\nbad-1\n", "")
    assert (names(place, State.DEAD), names(place, State.PENDING)) == (
        ["bad-3"],
        ["bad-1", "bad-2"],
    )
    document = json.loads(run("show", "bad-1", "--json").stdout)
    assert (document["state"], document["attempts"], len(document["history"])) == ("pending", 0, 3)


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        ("fine", 65, "job fine is completed, not dead; see 'queuectl dlq list'"),
        ("nope", 66, "no such job: nope"),
        (
            "bad",
            66,
            "no such job: bad; give the whole id: bad-1",
        ),  # a prefix does not do: this changes the job
    ],
)
def test_retry_changes_nothing_where_one_id_is_wrong(
    run: Run, place: Placing, wrong: str, code: int, message: str
) -> None:
    """All ids are checked before the first job is moved."""
    place.dead("bad-1")
    place.job(State.COMPLETED, "fine")
    assert run("dlq", "retry", "bad-1", wrong) == (code, "", f"Error: {message}\n")
    assert (names(place, State.DEAD), names(place, State.PENDING)) == (["bad-1"], [])


def test_retry_all_runs_them_in_the_order_in_which_they_died(run: Run, place: Placing) -> None:
    """The first that died is the first in the queue."""
    place.dead("b", ago=30)
    place.dead("c", ago=20)
    place.dead("a", ago=10)
    assert run("dlq", "retry", "--all") == (0, "b\nc\na\n", "")
    pending = json.loads(run("list", "--json").stdout)
    assert [(each["id"], each["state"]) for each in pending] == [
        ("b", "pending"),
        ("c", "pending"),
        ("a", "pending"),
    ]


def test_retry_all_matching_looks_at_id_and_command(run: Run, place: Placing) -> None:
    """--matching finds a regular expression in either."""
    place.dead("backup-1", ago=30, command="true")
    place.dead("x", ago=20, command="run backup")
    place.dead("y", command="true")
    assert run("dlq", "retry", "--all", "--matching", "b.ckup") == (0, "backup-1\nx\n", "")
    assert names(place, State.DEAD) == ["y"]


def test_retry_all_leaves_what_cannot_be_read_and_says_so(run: Run, place: Placing) -> None:
    """The others are retried all the same."""
    place.dead("bad", ago=1)
    place.dead("broken", ago=9).write_text("{")
    assert run("dlq", "retry", "--all") == (
        65,
        "bad\n",
        "Error: cannot be read and were left as they are: broken; see 'queuectl dlq list'\n",
    )
    assert names(place, State.DEAD) == ["broken"]


def test_retry_all_passes_over_what_somebody_else_retried(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a job leaves dead/ between the look at it and the retry."""
    place.dead("a", ago=20)
    moving = place.dead("b", ago=10)
    retry = DirectoryStore.retry

    def faster(self: DirectoryStore, job_id: str, *args: object) -> object:
        if job_id == "a":
            moving.rename(place.store_dir / "completed" / "b.json")
        return retry(self, job_id, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectoryStore, "retry", faster)
    # Both documents are read before either is moved: nothing else tells that b has gone.
    monkeypatch.setattr("queuectl.cli.dlq.select", _eager_select())
    assert run("dlq", "retry", "--all") == (0, "a\n", "")


def _eager_select() -> object:
    from queuectl.query import select

    return lambda *args, **kwargs: iter(list(select(*args, **kwargs)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the IDs of dead jobs, or --all"),
        (("--all", "bad-1"), "give IDs or --all, not both"),
        (("--matching", "b", "bad-1"), "--matching needs --all"),
        (
            ("--all", "--matching", "["),
            (
                "Invalid value for '--matching': '[' is not a regular expression: unterminated"
                " character set at position 0"
            ),
        ),
    ],
)
def test_retry_refuses_what_is_unclear(
    run: Run, place: Placing, words: tuple[str, ...], message: str
) -> None:
    """Neither all nor none is guessed."""
    place.dead("bad-1")
    assert run("dlq", "retry", *words) == (
        2,
        "",
        f"Error: {message}. Try 'queuectl dlq retry --help'.\n",
    )
    assert names(place, State.DEAD) == ["bad-1"]


def test_purge_deletes_dead_jobs_with_their_logs(run: Run, place: Placing) -> None:
    """Nothing of another state goes, nor a log of another job."""
    place.dead("bad-1", runs=2)
    place.dead("bad-2", runs=1)
    place.job(State.COMPLETED, "fine", history=(attempt("fine"),))
    for job_id, number in (("bad-1", 1), ("bad-1", 2), ("bad-1", 3), ("bad-2", 1), ("fine", 1)):
        place.log(job_id, number, b"x")
    assert run("dlq", "purge") == (0, "2 jobs purged\n", "")
    assert names(place, State.DEAD) == []
    assert names(place, State.COMPLETED) == ["fine"]
    assert [path.name for path in (place.store_dir / "logs").iterdir()] == ["fine.1.log"]


def test_purge_older_than_keeps_what_died_since(run: Run, place: Placing) -> None:
    """The age is that of the file: when the job died."""
    place.dead("old", ago=3700)
    place.dead("new", ago=3500)
    kept = place.log("new", 1, b"x")
    assert run("dlq", "purge", "--older-than", "1h") == (0, "1 job purged\n", "")
    assert names(place, State.DEAD) == ["new"]
    assert kept.exists()


def test_purge_leaves_what_cannot_be_read_and_says_so(run: Run, place: Placing) -> None:
    """A broken document may be all that is left of a job: it is kept for a person to look at."""
    place.dead("broken").write_text("{")
    place.dead("bad")
    assert run("dlq", "purge") == (
        65,
        "1 job purged\n",
        "Error: cannot be read and were left as they are: broken; see 'queuectl doctor'\n",
    )
    assert names(place, State.DEAD) == ["broken"]


def test_purge_refuses_a_bad_duration(run: Run, place: Placing) -> None:
    """Nothing is deleted on a guess."""
    place.dead("bad")
    code, stdout, stderr = run("dlq", "purge", "--older-than", "1y")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("Error: Invalid value for '--older-than': '1y' is not a duration;")
    assert names(place, State.DEAD) == ["bad"]
