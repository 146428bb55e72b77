"""What ``queuectl status --watch`` shows on a terminal, and how it leaves that."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.cli.terminal import Terminal, needs_tmux, opened
from tests.process.support import until

from queuectl.cli.status import page
from queuectl.clock import utc_now
from queuectl.job import State
from queuectl.text import columns


@pytest.fixture
def terminal(place: Placing) -> Iterator[Terminal]:
    """Return a terminal whose shell uses the test's store."""
    with opened(place.store_dir) as terminal:
        yield terminal


def watch(terminal: Terminal) -> None:
    """Start status --watch in the shell, which tells its exit code afterwards."""
    terminal.type(f"cd {terminal.directory}; stty -a > modes; echo bef''ore", "Enter")
    terminal.shows("before")
    terminal.type("sh -c 'echo $$ > pid; exec queuectl status --watch'; echo code=$?", "Enter")
    until(lambda: terminal.mode() == "100\n", "the whole screen is taken")
    terminal.shows("workers")


@needs_tmux
def test_it_draws_anew_what_changes_and_follows_the_size(
    terminal: Terminal, place: Placing
) -> None:
    """Counts, workers and failures are there, and each line fits in a window made smaller."""
    place.job(State.PROCESSING, "running-now")
    place.worker("w-1", utc_now() - timedelta(seconds=65), job="running-now", attempt=2)
    watch(terminal)
    screen = terminal.shows("running-now")
    assert "w-1     running-now  2        1m" in screen
    assert "workers             1  1 busy, 0 ended in the last minute" in screen
    place.dead("bad-1", command="x" * 90, ago=7230)
    place.log("bad-1", 3, b"No space left on device\n")
    screen = terminal.shows("bad-1")
    assert "exit 3" in screen
    assert "...  No space left on de...\n" in screen  # up to the last column
    terminal.resize(66, 20)
    screen = terminal.shows("  No space lef...\n")
    assert all(len(line) <= 66 for line in screen.splitlines())
    assert screen.startswith("20")  # the first line, at the top
    terminal.resize(100, 10)
    until(lambda: "bad-1" not in terminal.shown(), "there is no room for failures")
    assert "workers             1  1 busy" in terminal.shown()


@needs_tmux
def test_wide_characters_take_the_columns_that_a_terminal_gives_them(
    terminal: Terminal, place: Placing
) -> None:
    """No row is wrapped or cut off, and what stands below each other begins in one column."""
    commands = ("echo 'こんにちは世界' | " * 9, "e\u0301" * 90, "🚀" * 90, "x" * 90)
    for index, command in enumerate(commands):
        job_id = f"job-{index}"
        place.dead(job_id, command=command, ago=7230 + index)
        place.log(job_id, 3, b"No space left on device\n")
    terminal.type("clear; queuectl list", "Enter")
    until(lambda: terminal.shown().count("xxx...\n") == 1, "the list is there")
    rows = [line for line in terminal.shown().splitlines() if " dead " in line]
    assert [columns(row) for row in rows] == [80, 80, 80, 80]
    watch(terminal)
    screen = terminal.shows("LAST LINE")
    rows = [line for line in screen.splitlines() if "  exit 3  " in line]
    assert len(rows) == 4
    assert {columns(row[: row.index("No space")]) for row in rows} == {
        columns(screen[: screen.index("LAST LINE")].splitlines()[-1])
    }


@needs_tmux
@pytest.mark.parametrize(
    ("way", "code"), [("C-c", 0), ("q", 0), ("SIGTERM", 143), ("SIGHUP", 129), ("unsafe", 77)]
)
def test_it_leaves_the_terminal_as_it_was(
    terminal: Terminal, place: Placing, way: str, code: int
) -> None:
    """However it ends, the old screen, the cursor and the modes are back."""
    watch(terminal)
    if way == "unsafe":
        place.store_dir.chmod(0o777)
    elif way.startswith("SIG"):
        os.kill(int((terminal.directory / "pid").read_text()), signal.Signals[way])
    else:
        terminal.type(way)
    screen = terminal.shows(f"code={code}\n")
    assert "before" in screen
    assert "pending" not in screen
    assert terminal.mode() == "011\n"
    terminal.type("stty -a | diff modes - && echo sa''me", "Enter")
    terminal.shows("same")


@needs_tmux
def test_it_can_be_suspended(terminal: Terminal) -> None:
    """Ctrl-Z gives the terminal back meanwhile, and fg brings the screen again."""
    watch(terminal)
    terminal.type("C-z")
    assert "before" in terminal.shows("Stopped")
    assert terminal.mode() == "011\n"
    terminal.type("fg", "Enter")
    terminal.shows("workers")
    assert terminal.mode() == "100\n"
    terminal.type("q")
    terminal.shows("before")


def test_without_a_terminal_it_is_refused(run: Run) -> None:
    """A script that asks for it is told what to do; a file full of screens helps nobody."""
    code, stdout, stderr = run("status", "--watch")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("Error: --watch needs a terminal; without it, status prints once")
    code, stdout, stderr = run("status", "--watch", "--json")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("Error: give --watch or --json, not both")


def test_a_page_has_room_for_the_busy_first(place: Placing) -> None:
    """Of many workers the busy ones are shown, the longest at work first, and how many more."""
    now = utc_now()
    for number in range(30):
        busy = {"job": f"job-{number}", "attempt": 1} if number >= 10 else {}
        place.worker(f"w-{number:02}", now - timedelta(seconds=number), **busy)
    place.dead("bad-1")
    lines = page(str(place.store_dir), 80, 24)
    assert len(lines) == 24
    assert lines[10].split() == ["WORKER", "JOB", "ATTEMPT", "FOR", "DONE"]
    assert lines[11].split() == ["w-29", "job-29", "1", "29s", "0"]
    assert lines[20] == "and 21 more"
    assert lines[23].startswith("bad-1")


def test_a_page_of_an_absent_store_is_an_empty_queue(tmp_path: Path) -> None:
    """It is looked for again each time, and not made."""
    lines = page(str(tmp_path / "none"), 80, 24)
    assert lines[-1] == "workers             0  0 busy, 0 ended in the last minute"
    assert not (tmp_path / "none").exists()
