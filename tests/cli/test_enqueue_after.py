"""The options and keys that make a job wait for others, and what shows it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run

import queuectl


def document(run: Run, job_id: str) -> dict[str, Any]:
    """Return the document of a job as show prints it."""
    shown: dict[str, Any] = json.loads(run("show", job_id, "--json").stdout)
    return shown


def batch(run: Run, tmp_path: Path, *lines: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Enqueue a batch; return the exit code and stderr."""
    path = tmp_path / "batch"
    path.write_text("\n".join(lines))
    exit_code, _, stderr = run("enqueue", "--batch", str(path), *options)
    return exit_code, stderr


def test_options_make_a_job_wait(run: Run, store_dir: Path) -> None:
    """Each option can be repeated; the job waits under the first of its parents."""
    for parent in "pqrs":
        run("enqueue", "true", "--id", parent)
    words = ("--after", "p", "--after", "q", "--after", "p", "--after-any", "r", "--after-any", "s")
    assert run("enqueue", "true", "--id", "c", *words) == (0, "c\n", "")
    assert (store_dir / "blocked/p/c.json").is_file()
    shown = document(run, "c")
    assert (shown["state"], shown["after"], shown["after_any"]) == (
        "blocked", ["p", "q"], ["r", "s"],
    )  # fmt: skip


def test_keys_of_a_document_make_a_job_wait(run: Run) -> None:
    """They are the options' equals."""
    run("enqueue", "true", "--id", "p")
    text = '{"id": "c", "command": "true", "after": ["p"], "after_any": ["p"]}'
    assert run("enqueue", text) == (0, "c\n", "")
    assert document(run, "c")["state"] == "blocked"


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ('{"command": "true", "after": ["q"]}', "--after"),
        ('{"command": "true", "after": []}', "--after"),
        ('{"command": "true", "after_any": ["p", "q"]}', "--after-any"),
    ],
)
def test_an_option_and_a_key_that_disagree(run: Run, text: str, option: str) -> None:
    """Other parents in one place than in the other are a usage error."""
    run("enqueue", "true", "--id", "p")
    run("enqueue", "true", "--id", "q")
    exit_code, stdout, stderr = run("enqueue", text, option, "p")
    assert (exit_code, stdout) == (2, "")
    assert f"{option} conflicts with the job document" in stderr


def test_an_option_and_a_key_that_agree(run: Run) -> None:
    """The order of the parents makes no difference."""
    run("enqueue", "true", "--id", "p")
    run("enqueue", "true", "--id", "q")
    text = '{"id": "c", "command": "true", "after": ["p", "q"]}'
    assert run("enqueue", text, "--after", "q", "--after", "p").exit_code == 0


@pytest.mark.parametrize("option", ["--after", "--after-any"])
def test_an_unknown_parent(run: Run, store_dir: Path, option: str) -> None:
    """It is named with what would do, a job that was to get an id is not; nothing is enqueued."""
    exit_code, stdout, stderr = run("enqueue", "true", option, "nope")
    assert (exit_code, stdout) == (66, "")
    assert stderr == (
        "Error: no such job to wait for: nope; give the full id of a job that is in the queue\n"
    )
    assert run("list", "--json").stdout == "[]\n"


@pytest.mark.parametrize("value", ["", "../x", "a b"])
def test_a_parent_that_is_no_id(run: Run, store_dir: Path, value: str) -> None:
    """What is no id never becomes a path."""
    assert run("enqueue", "true", "--after", value).exit_code == 65
    assert run("enqueue", json.dumps({"command": "x", "after": [value]})).exit_code == 65
    assert not store_dir.exists()


@pytest.mark.parametrize("value", ['"p"', "null", "[1]", "{}"])
def test_a_key_of_a_wrong_type(run: Run, value: str) -> None:
    """The key is named."""
    exit_code, _, stderr = run("enqueue", f'{{"command": "true", "after": {value}}}')
    assert exit_code == 65
    assert "'after'" in stderr


def test_a_line_of_a_batch_may_wait_for_an_earlier_one(run: Run, tmp_path: Path) -> None:
    """A whole pipeline goes in at once, also one whose last job has no id of its own."""
    lines = (
        '{"id": "a", "command": "true"}',
        '{"id": "b", "command": "true", "after": ["a"]}',
        '{"command": "true", "after": ["a", "b"]}',
    )
    assert batch(run, tmp_path, *lines) == (0, "")
    states = [row["state"] for row in json.loads(run("list", "--json").stdout)]
    assert sorted(states) == ["blocked", "blocked", "pending"]


def test_a_line_of_a_batch_may_wait_for_a_later_one(run: Run, tmp_path: Path) -> None:
    """The order of the lines is that of their owner, as in what list prints."""
    lines = (
        '{"id": "a", "command": "true"}',
        "",
        '{"id": "c", "command": "true", "after": ["b"], "after_any": ["a"]}',
        '{"id": "b", "command": "true"}',
    )
    assert batch(run, tmp_path, *lines) == (0, "")
    states = {each["id"]: each["state"] for each in json.loads(run("list", "--json").stdout)}
    assert states == {"a": "pending", "b": "pending", "c": "blocked"}


def test_a_line_of_a_batch_may_not_wait_for_what_is_nowhere(run: Run, tmp_path: Path) -> None:
    """The line is named, and nothing is enqueued."""
    lines = ('{"id": "a", "command": "true"}', "", '{"command": "true", "after": ["b"]}')
    exit_code, stderr = batch(run, tmp_path, *lines)
    assert exit_code == 66
    assert stderr.startswith("Error: line 3: no such job to wait for: b; ")
    assert run("list", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("waits", "circle"),
    [
        ({"a": "a"}, "line 2: jobs wait for each other in a circle: a -> a"),
        ({"a": "b", "b": "c", "c": "a"},
         "line 2: jobs wait for each other in a circle: a -> b -> c -> a"),
        ({"a": "b", "b": "c", "c": "b"},
         "line 3: jobs wait for each other in a circle: b -> c -> b"),
    ],
)  # fmt: skip
def test_lines_of_a_batch_may_not_wait_in_a_circle(
    run: Run, tmp_path: Path, waits: dict[str, str], circle: str
) -> None:
    """None of them would ever run."""
    lines = [json.dumps({"id": job, "command": "x", "after": [of]}) for job, of in waits.items()]
    assert batch(run, tmp_path, "true", *lines) == (65, f"Error: {circle}\n")
    assert run("list", "--json").stdout == "[]\n"


def test_options_apply_to_all_lines_of_a_batch(run: Run, tmp_path: Path) -> None:
    """All of them wait for the same job."""
    run("enqueue", "true", "--id", "p")
    assert batch(run, tmp_path, "true", "false", options=("--after", "p")) == (0, "")
    rows = json.loads(run("list", "--json", "--state", "blocked").stdout)
    assert [row["after"] for row in rows] == [["p"], ["p"]]


def test_skip_asks_for_no_parent(run: Run) -> None:
    """A cron line goes on when its job is there and the parent was purged."""
    run("enqueue", "true", "--id", "c")
    words = ("enqueue", "true", "--id", "c", "--after", "gone")
    assert run(*words, "--if-exists", "skip") == (0, "c\n", "")
    assert run(*words).exit_code == 65


def test_list_and_show_tell_what_a_job_waits_for(run: Run, store_dir: Path) -> None:
    """The parent is named, and how it ended where that keeps the job blocked."""
    run("enqueue", "true", "--id", "p")
    run("enqueue", "true", "--id", "c", "--after", "p")
    assert "  after p  " in run("list", "--state", "blocked").stdout
    assert "after         p (pending)\n" in run("show", "c").stdout
    run("cancel", "p")
    assert "  after p (cancelled)  " in run("list", "--state", "blocked").stdout
    assert "after         p (cancelled)\n" in run("show", "c").stdout


def test_list_and_show_tell_of_a_parent_that_is_gone(run: Run, store_dir: Path) -> None:
    """A hand may have deleted it: then the job waits for ever, and somebody has to know."""
    run("enqueue", "true", "--id", "p")
    run("enqueue", "true", "--id", "q")
    run("enqueue", "true", "--id", "c", "--after", "p")
    run("enqueue", "true", "--id", "d", "--after", "q")
    (path,) = (store_dir / "pending").glob("*-p.json")
    path.unlink()
    rows = run("list", "--state", "blocked").stdout
    assert "  after p (gone)  " in rows
    assert "  after q  " in rows
    assert "after         p (no such job)\n" in run("show", "c").stdout


def test_an_enqueue_that_waits_for_nothing_does_not_load_the_code(tmp_path: Path) -> None:
    """Who has no dependencies does not pay for them, even where others are blocked."""
    store_dir = tmp_path / "store"
    program = (
        "import sys\nfrom queuectl.cli.group import run\n"
        "assert run(['enqueue', 'true', '--id', 'p']) == 0\n"
        "print('queuectl.store.dependencies' in sys.modules, file=sys.stderr)\n"
        "assert run(['enqueue', 'true', '--after', 'p']) == 0\n"
        "print('queuectl.store.dependencies' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "QUEUECTL_STORE": str(store_dir),
            "PYTHONPATH": os.path.dirname(os.path.dirname(queuectl.__file__)),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "False\nTrue\n"
