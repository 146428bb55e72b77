"""A log on a terminal: what the command meant it to look like, and nothing that it does to us."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.cli.placing import Placing
from tests.cli.terminal import Terminal, needs_tmux, opened
from tests.jobs import attempt, make_job
from tests.process.support import until

from queuectl.cli.replay import Replay
from queuectl.document import encode_job
from queuectl.job import State
from queuectl.line import Line, finally_shown

ENDING = b"\x1b[0m"


class Screen:
    """Collect what is written to a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None, width: int = 80) -> None:
        if monkeypatch is not None:
            monkeypatch.setenv("TERM", "xterm")
            monkeypatch.delenv("NO_COLOR", raising=False)
        self.written: list[bytes] = []
        self.replay = Replay(self.written.append, lambda: width)

    def follow(self, *parts: bytes) -> bytes:
        """Return what is written of a log that comes in parts, each drawn."""
        for part in parts:
            self.replay.feed(part)
            self.replay.draw()
        return self.take()

    def all(self, data: bytes) -> bytes:
        """Return what is written of a whole log."""
        self.replay.feed(data)
        self.replay.finish()
        return self.take()

    def take(self) -> bytes:
        """Return what has been written since the last time."""
        written = b"".join(self.written)
        self.written.clear()
        return written


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Return a terminal of 80 columns that knows colours."""
    return Screen(monkeypatch)


def test_log_looks_as_it_was_meant(screen: Screen) -> None:
    """Colours, progress and lines of any kind; what else a terminal would obey is shown."""
    assert screen.all(
        b"\x1b[1;31merror\x1b[0m: no\n 1%\r50%\r100%\x1b[K\r\n\x1b]0;title\x07\xff\na\tb\x1b[2J"
    ) == (
        b"\x1b[1;31merror\x1b[0m: no\n100%\n\\x1b]0;title\\x07\\xff\na\tb\\x1b[2J"
    )  # fmt: skip


def test_style_goes_over_lines_and_is_taken_back_on_each(screen: Screen) -> None:
    """Who ends the program in between has a terminal in its own colours."""
    assert screen.all(b"\x1b[31mone\ntwo\n\n\x1b[0mthree") == (
        b"\x1b[31mone\x1b[0m\n\x1b[31mtwo\x1b[0m\n\nthree"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", None)], ids=str
)
def test_style_is_dropped_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    """Not shown as text, but left out; a carriage return acts all the same."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    assert Screen().all(b"\x1b[31mred\x1b[0m\n1\r\x1b[32m2\n\x1b[2J") == b"red\n2\n\\x1b[2J"


def test_empty_no_color_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As no-color.org has it."""
    screen = Screen(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "")
    assert screen.all(b"\x1b[31mred") == b"\x1b[31mred\x1b[0m"


def test_line_is_drawn_over_while_it_is_followed(screen: Screen) -> None:
    """What is added is added; what was gone back in is drawn from its beginning."""
    assert screen.follow(b"10%", b"..") == b"10%.."
    assert screen.follow(b"\r20%") == b"\r\x1b[K20%.."
    assert screen.follow(b"\r\x1b[K30%") == b"\r\x1b[K30%"
    assert screen.follow(b"\r30%") == b""  # nothing has changed
    assert screen.follow(b"\r\x1b[32m40%\x1b[0m!\r") == b"\r\x1b[K\x1b[32m40%\x1b[0m!"
    assert screen.follow(b"\n", b"next") == b"\nnext"
    assert screen.follow(b"\rlast\n") == b"\r\x1b[Klast\n"


def test_line_that_is_cut_off_is_drawn_when_it_is_whole(screen: Screen) -> None:
    """A sequence or a character may be cut where what has come so far ends."""
    assert screen.follow(b"a\x1b[3", b"1mb", b"\xe2\x82", b"\xac\x1b[0") == (
        b"a\x1b[31mb\x1b[0m\x1b[31m\xe2\x82\xac\x1b[0m"
    )
    screen.replay.finish()
    assert screen.take() == b"\x1b[31m\\x1b[0\x1b[0m"


def test_byte_that_is_no_character_is_shown_at_the_end(screen: Screen) -> None:
    """Nothing comes that could make one of it."""
    assert screen.all(b"x\xe2\x82") == b"x\\xe2\\x82"


def test_line_does_not_wrap_around_while_it_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """No way leads back from where it wraps; when it has ended, all of it is shown."""
    screen = Screen(monkeypatch, width=10)
    assert screen.follow(b"." * 8, b"." * 8) == b"." * 16  # nothing has to be drawn over yet
    assert screen.follow(b"\r" + b"x" * 16) == b"\n" + b"x" * 9
    assert screen.follow(b"\r" + "日".encode() * 8) == b"\r\x1b[K" + "日".encode() * 4
    assert screen.follow(b"\n") == b"\r\x1b[K" + "日".encode() * 8 + b"\n"


def test_terminal_that_cannot_erase_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces take the place of what is no longer there."""
    monkeypatch.setenv("TERM", "dumb")
    assert Screen().follow(b"abcdef", b"\r\x1b[Kxy") == b"abcdef\r      \rxy"


def test_logs_of_two_attempts_stand_on_lines_of_their_own(screen: Screen) -> None:
    """The second must not draw over the first, nor take its colour."""
    assert screen.follow(b"\x1b[31mone") == b"\x1b[31mone\x1b[0m"
    screen.replay.finish()
    screen.replay.begin()
    assert screen.follow(b"\rtwo") == b"\ntwo"


def test_line_of_megabytes_takes_little_memory(screen: Screen) -> None:
    """It is written as it comes, and nothing of it is lost."""
    count = 0
    for _ in range(200):
        count += len(screen.follow(b"x" * 65536))
        assert len(screen.replay._line.cells) <= 4096
    screen.replay.finish()
    assert count + len(screen.take()) == 200 * 65536
    assert screen.follow(b"\n", b"1", b"\r2") == b"\n1\r\x1b[K2"


@pytest.mark.parametrize("data", [b"\x1b[" + b"1;" * 3_000_000 + b"m", b"\r\x1b[K.." * 1_000_000])
def test_megabytes_of_anything_take_little_memory(screen: Screen, data: bytes) -> None:
    """A sequence without an end is none, and a line is not held as often as it was drawn."""
    for at in range(0, len(data), 65536):
        screen.replay.feed(data[at : at + 65536])
        assert len(screen.replay._line.cells) <= 4096
        assert len(screen.replay._line._rest) <= 256


_pieces = st.sampled_from(
    [
        *(b"\r", b"\b", b"\t", b"\n", b"\x1b[31m", b"\x1b[0m", b"\x1b[K", b"\x1b[2K", b"\x1b[1K"),
        *(b"\x1b[2J", b"\x1b[1A", b"\x1b]0;t\x07", b"\x9b31m", b"\xc2\x9b31m", b"\x1b", b"[", b"m"),
        *("日".encode(), "🚀".encode(), "e\u0301".encode(), b"abc", b"x" * 30, b"\xff", b"\xe2"),
    ]
)
logs = st.lists(st.lists(_pieces | st.binary(max_size=4), max_size=8).map(b"".join), max_size=5)
_HARMLESS = re.compile(rb"\x1b\[[0-9;:]+m[^\x1b]*\x1b\[0m|\x1b\[K")


@given(logs, st.sampled_from([7, 80, 10_000]))
def test_nothing_gets_through_that_a_terminal_would_obey(parts: list[bytes], width: int) -> None:
    """Each write ends without a style, and goes to no other line."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        screen = Screen(monkeypatch, width)
        screen.follow(*parts[:1])
        screen.replay.finish()
        screen.written.clear()
        for part in parts[1:]:
            written = screen.follow(part)
            assert not re.search(rb"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]", _HARMLESS.sub(b"", written))
            assert not re.search("[\x80-\x9f]", written.decode())


@given(logs)
@example([b"1234567890\r", b"\x1b[K\t"])
@example([b"\x1b[2J", b"\r\x1b[K\t"])
def test_followed_log_looks_in_the_end_as_one_that_is_printed(parts: list[bytes]) -> None:
    """However it came, each line shows at last what the whole of it does."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        screen = Screen(monkeypatch, width=10_000)
        followed = screen.follow(*parts)
        screen.replay.finish()
        followed += screen.take()
        printed = Screen(monkeypatch, width=10_000).all(b"".join(parts))
    assert _lines(followed) == _lines(printed)
    text = b"".join(parts).decode(errors="surrogateescape")
    assert [line.rstrip() for line in _lines(printed, styles=False)] == [
        finally_shown(line).rstrip() for line in text.split("\n")
    ]


def _lines(data: bytes, *, styles: bool = True) -> list[str]:
    shown = []
    for text in data.decode().split("\n"):
        line = Line(has_styles=styles)
        line.write(text)
        shown.append("".join(map("|".join, zip(line.cells, line.styles, strict=True))).rstrip("| "))
        if not styles:
            shown[-1] = "".join(line.cells)
    return shown


# --- the program, on a terminal -------------------------------------------------------------------


def on_a_terminal(store_dir: Path, *words: str, **env: str) -> bytes:
    """Return what the command writes to a terminal."""
    terminal, stdout = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "queuectl", "--store", str(store_dir), *words],
            stdout=stdout,
            check=True,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "", "LC_ALL": "C.UTF-8", **env},
        )
        return os.read(terminal, 65536)
    finally:
        os.close(stdout)
        os.close(terminal)


def test_terminal_and_other_readers_are_given_what_is_theirs(place: Placing) -> None:
    """Only what is written to a terminal is changed, and not with --raw."""
    place.dead("job-1", runs=1)
    log = "a\tb\n\x1b]0;title\x07\n\x1b[31mred\x1b[0m 1%\r\x9b31m ü€".encode() + b"\xff\n"
    place.log("job-1", 1, log)
    assert on_a_terminal(place.store_dir, "logs", "job-1") == (
        "a\tb\r\n\\x1b]0;title\\x07\r\n\\x9b31m ü€\\xff\r\n".encode()
    )
    raw = on_a_terminal(place.store_dir, "logs", "job-1", "--raw")
    assert raw == log.replace(b"\n", b"\r\n")
    plain = on_a_terminal(place.store_dir, "logs", "job-1", "--tail", "1", NO_COLOR="1")
    assert b"\x1b" not in plain
    command = [sys.executable, "-m", "queuectl", "--store", str(place.store_dir), "logs", "job-1"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == log


@pytest.fixture
def terminal(place: Placing) -> Iterator[Terminal]:
    """Return a terminal whose shell uses the test's store."""
    with opened(place.store_dir) as terminal:
        yield terminal


# Shown by tmux as it is and by us: both must look the same.
ALIKE = [
    "10%\r20%\r 5%", "abc\x1b[2K\rx", "abcdef\b\b\b\x1b[Kx", "a\tb\rxx", "日本語\rx",
    "日本語\r\x1b[Kx",
    "ab\t\b\bcd", "abcdefghijkl\r\tX", "\x1b[31mred\x1b[0m\rx", "e\u0301x\rE", "abcdef\r\x1b[1Kx",
    "a日b\b\bx", "日\b\b..", "|███  |\r|████ |", "a\x1b(Bb\x0fc", "x\r\n\r\ny",
    "\x1b[1;3;4mx\x1b[my",
]  # fmt: skip


@needs_tmux
def test_line_looks_as_on_a_terminal(terminal: Terminal, place: Placing) -> None:
    """What tmux makes of the log itself is what it shows of ours."""
    data = ("\n".join(ALIKE) + "\n").encode()
    place.dead("job-1", runs=1)
    path = place.log("job-1", 1, data)
    terminal.type(f"clear; cat {path}; echo DO''NE", "Enter")
    expected = terminal.shows("DONE")
    terminal.type("clear; queuectl logs job-1; echo RE''ADY", "Enter")
    assert terminal.shows("READY").replace("READY", "DONE") == expected


@needs_tmux
def test_progress_is_followed_on_one_line(terminal: Terminal, place: Placing) -> None:
    """A bar is drawn over itself, also one that is wider than the terminal, and stays when done."""
    place.job(State.PROCESSING, "job-1")
    place.log("job-1", 1, b"begin\n\x1b[32m 10%\x1b[0m|#")
    terminal.type("clear; queuectl logs --follow job-1; echo co''de=$?", "Enter")
    terminal.shows(" 10%|#\n")
    place.log("job-1", 1, b"\r\x1b[32m 20%\x1b[0m|##")
    assert "10%" not in terminal.shows(" 20%|##\n")
    terminal.resize(20, 10)
    place.log("job-1", 1, b"\r 30%|" + b"#" * 30)
    terminal.shows(" 30%|##############\n")
    place.log("job-1", 1, b"\r 40%|" + b"=" * 30)
    screen = terminal.shows(" 40%|==============\n")
    assert screen.splitlines()[:2] == ["begin", " 40%|=============="]
    place.log("job-1", 1, b"\r\x1b[Kdone\nend\n")
    running = place.store_dir / "processing" / "job-1.1.json"
    history = (attempt("job-1", 1),)
    running.write_bytes(encode_job(make_job("job-1", history=history, state=State.COMPLETED)))
    running.rename(place.store_dir / "completed" / "job-1.json")
    screen = terminal.shows("code=0")
    assert screen.splitlines()[:4] == ["begin", "done", "end", "code=0"]


BAR = """
import sys, time
for n in range(0, 101, 20):
    sys.stderr.write(f"\\r\\x1b[K\\x1b[36m{n:3}%\\x1b[0m |{'█' * (n // 5):20}| 日本")
    sys.stderr.flush()
    sys.stdin.readline()
sys.stderr.write("\\n")
"""


@needs_tmux
def test_bar_of_a_real_job_is_followed(terminal: Terminal, place: Placing) -> None:
    """From a job that waits for its worker to its end."""
    (terminal.directory / "bar.py").write_text(BAR, encoding="utf-8")
    fifo = terminal.directory / "go"
    os.mkfifo(fifo)
    terminal.type(f"clear; cd {terminal.directory}; queuectl enqueue --id bar --"
                  f" sh -c '{sys.executable} bar.py <go'; queuectl worker start --drain --quiet &"
                  " clear; queuectl logs -f bar; echo co''de=$?", "Enter")  # fmt: skip
    with fifo.open("w") as go:
        for step in range(0, 101, 20):
            screen = terminal.shows(f"{step:3}% |{'█' * (step // 5):20}| 日本")
            assert screen.count("%") == 1
            go.write("\n")
            go.flush()
    screen = terminal.shows("code=0")
    assert screen.count("%") == 1
    until((place.store_dir / "completed" / "bar.json").exists, "the job has ended")
