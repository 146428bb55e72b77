"""Every example of the documentation is run as its reader would, and prints what the page shows.

Each page is one session of the shell, in a home directory of its own, from its first console block
to its last. The rules are told to writers in CONTRIBUTING.md.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.docs.pages import PAGES, Block, Example, blocks, examples, matches, page_name
from tests.program import QUEUECTL

import queuectl

SHOWN_HOME = "/home/ada"  # how the pages call the home directory
RUNNABLE = ("console", "crontab")
# What stands in the other blocks is shown, not run; another tag is a typing error.
LANGUAGES = {*RUNNABLE, "ini", "json", "mermaid", "python", "sh", "text"}
_MOST_SECONDS = 40
_END = "--end of example"
_CRON_FIELDS = re.compile(r"(?:(?:[-*/,0-9]+ +){5}|@(?:reboot|hourly|daily|weekly|monthly) +)(.+)")


class Done(NamedTuple):
    """Hold what a command has printed, stderr included, and its exit code."""

    lines: tuple[str, ...]
    exit_code: int


class Session:
    """Be the shell of one reader."""

    def __init__(self, home: Path) -> None:
        self.home = home
        bin_dir = home / "bin"
        bin_dir.mkdir(parents=True)
        program = bin_dir / "queuectl"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(QUEUECTL)} "$@"\n')
        program.chmod(0o700)
        (bin_dir / "python3").symlink_to(sys.executable)
        self.path = f"{bin_dir}:{os.defpath}"
        self.env = {
            "HOME": str(home),
            "PATH": self.path,
            "PYTHONPATH": str(Path(queuectl.__file__).parents[1]),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }

    def save(self, name: str, text: str) -> None:
        """Write a file that a page tells its reader to make."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if text.startswith("#!"):
            path.chmod(0o700)

    def run(self, commands: list[str]) -> list[Done]:
        """Run commands in one shell, each whatever became of the one before it."""
        script = "".join(
            f"{command}\nstatus=$?; printf '\\n%s %s\\n' '{_END}' $status; (exit $status)\n"
            for command in commands
        )
        # A file and not a pipe: workers in the background may hold what they were started with.
        output_path = self.home.with_name("output")
        with output_path.open("wb") as output:
            shell = subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                shell.wait(_MOST_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
        printed = output_path.read_text(errors="replace").replace(str(self.home), SHOWN_HOME)
        *parts, _ = re.split(rf"\n{_END} (\d+)\n", printed)
        assert len(parts) == 2 * len(commands), f"the shell ended early, or took long:\n{printed}"
        outputs = zip(parts[::2], parts[1::2], strict=True)
        return [Done(tuple(text.splitlines()), int(code)) for text, code in outputs]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Return a reader's shell; whatever workers are left at the end are stopped."""
    session = Session(tmp_path / "home")
    yield session
    if (session.home / ".queuectl").exists():
        session.run(["queuectl worker stop --now"])


def cron_commands(block: Block) -> Iterator[str]:
    """Yield the command of each line of a crontab, with the variables that it sets before it."""
    variables = ""
    for line in block.text.splitlines():
        if not line or line.startswith("#"):
            continue
        if re.match(r"[A-Z]+=", line):
            name, _, value = line.partition("=")
            # The test's own program stands in for the installed one.
            variables += f"{name}={value}{':$PATH' if name == 'PATH' else ''} "
            continue
        found = _CRON_FIELDS.fullmatch(line)
        assert found, f"no line of a crontab: {line}"
        assert "%" not in found[1].replace(r"\%", ""), "cron takes a bare % for a line's end"
        yield f"env {variables}/bin/sh -c {quoted(found[1])}"


def quoted(text: str) -> str:
    """Return text as one word of the shell."""
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_each_example_prints_what_the_page_shows(page: Path, session: Session) -> None:
    """A page can be worked through from the top, and never shows what is not so."""
    commands: list[Example] = []
    for block in blocks(page.read_text()):
        assert block.language in LANGUAGES, f"line {block.line - 1}: tag the block"
        if block.save_as is not None:
            # A file that is replaced further down would need to be written in between.
            assert not (session.home / block.save_as).exists()
            session.save(block.save_as, block.text)
        elif block.language == "console":
            commands += examples(block)
        elif block.language == "crontab":
            commands += (Example(each, ("...",), block.line, 0) for each in cron_commands(block))
    outputs = session.run([example.command for example in commands])
    wrong = [
        f"{page_name(page)}:{example.line}: $ {example.command}\n"
        + "".join(f"  shown   {line}\n" for line in example.output)
        + "".join(f"  printed {line}\n" for line in done.lines)
        + f"  exit code {done.exit_code}\n"
        for example, done in zip(commands, outputs, strict=True)
        if not matches(example.output, done.lines)
        or example.exit_code not in (None, done.exit_code)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_dots_stand_for_what_differs_and_for_nothing_else() -> None:
    """The rule by which shown and printed lines are compared."""
    assert matches(("took ...s", "...", "end"), ("took 0.25s", "a", "b", "end"))
    assert matches(("...",), ())
    assert matches((), ())
    assert not matches((), ("something",))
    assert not matches(("a...c",), ("a", "c"))
    assert not matches(("a", "..."), ("b", "a"))
