"""What holds for every command: help, errors, exit codes, streams."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing

import queuectl
from queuectl import cli
from queuectl.cli import group
from queuectl.cli.app import App

# Every way to a command, those inside of groups included.
TOP = click.Context(group.cli, info_name="queuectl")


def paths(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words that lead to a command and to all below it."""
    found = [words]
    if isinstance(command, click.Group):
        for name in command.list_commands(TOP):
            inner = command.get_command(TOP, name)
            assert inner is not None
            found += paths(inner, (*words, name))
    return found


COMMANDS = paths(group.cli)


def queuectl_process(
    *words: str, store_dir: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the program as a process of its own."""
    env = {**os.environ, "QUEUECTL_STORE": str(store_dir)}
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "queuectl", *words]
    return subprocess.run(command, check=False, text=True, env=env, **settings)


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help_with_an_example(
    run: Run, words: tuple[str, ...], option: str
) -> None:
    """Help is on stdout, fits in 80 columns, and shows how the command is used."""
    code, stdout, stderr = run(*words, option)
    assert (code, stderr) == (0, "")
    name = " ".join(("queuectl", *words))
    assert stdout.startswith(f"Usage: {name} ")
    assert re.search(rf"\n  Example:\n(    .*\n)*    {name}\b", stdout)
    assert [line for line in stdout.splitlines() if len(line) > 80] == []
    assert not run.store_dir.exists()


def test_help_lists_the_commands_by_section(run: Run) -> None:
    """What --help says of a command is what the command says of itself."""
    stdout = run("--help").stdout
    for name, (section, summary) in group.COMMANDS.items():
        assert f"\n{section}:\n" in stdout
        assert re.search(rf"\n  {name} +{re.escape(summary)}\n", stdout)
        command = group.cli.get_command(TOP, name)
        assert command is not None
        assert command.name == name


def test_no_command_shows_the_help(run: Run) -> None:
    """Somebody who types the name alone sees what there is."""
    code, stdout, stderr = run()
    assert (code, stdout) == (2, "")
    assert stderr == run("--help").stdout


def test_the_version_is_that_of_the_package(run: Run) -> None:
    """The program says which it is, in one line."""
    assert run("--version") == (0, f"queuectl {queuectl.__version__}\n", "")


# --- usage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["enqeue"], "No such command 'enqeue'. Did you mean 'enqueue'? Try 'queuectl --help'."),
        (["zzz"], "No such command 'zzz'. Try 'queuectl --help'."),
        (
            ["--stroe", "x"],
            "No such option '--stroe'. Did you mean '--store'? Try 'queuectl --help'.",
        ),
        (["--store"], "Option '--store' requires an argument."),
        (
            ["--store", "", "list"],
            "--store is empty; give a directory. Try 'queuectl --help'.",
        ),
        (["config"], None),
        (["config", "get"], "Missing argument 'KEY'. Try 'queuectl config get --help'."),
        (["\x1b[2J\nx"], r"No such command '\x1b[2J\nx'. Try 'queuectl --help'."),
    ],
)
def test_a_mistake_is_one_line(run: Run, words: list[str], message: str | None) -> None:
    """Bad usage exits with 2, and says what is near and where help is, on one plain line."""
    code, stdout, stderr = run(*words)
    assert (code, stdout) == (2, "")
    assert stderr == (run(*words, "--help").stdout if message is None else f"Error: {message}\n")


# --- the store ----------------------------------------------------------------------------------


def test_the_option_goes_before_the_variable(run: Run, tmp_path: Path) -> None:
    """--store, else $QUEUECTL_STORE."""
    other = tmp_path / "other"
    assert run("--store", str(other), "enqueue", "true").exit_code == 0
    assert other.is_dir()
    assert not run.store_dir.exists()


def test_the_default_store_is_in_the_home_directory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an option and a variable, and where a crontab wrote a ~, the home counts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("QUEUECTL_STORE")
    assert run("enqueue", "true").exit_code == 0
    assert (tmp_path / ".queuectl" / "format").exists()
    monkeypatch.setenv("QUEUECTL_STORE", "~/jobs")
    assert run("enqueue", "true").exit_code == 0
    assert (tmp_path / "jobs" / "format").exists()


def test_a_relative_store_is_here(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is named without a slash in front is in the current directory."""
    monkeypatch.chdir(tmp_path)
    assert run("--store", "q", "enqueue", "true").exit_code == 0
    assert (tmp_path / "q" / "pending").is_dir()


def test_a_kind_of_store_that_is_not_known_is_refused(run: Run) -> None:
    """A URL is never taken for a directory."""
    code, stdout, stderr = run("--store", "redis://localhost/0", "list")
    assert (code, stdout) == (78, "")
    assert stderr.startswith("Error: a store at a redis:// URL is not supported")


# --- errors -------------------------------------------------------------------------------------


def raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command that opens the store meet an error."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(App, "open", refuse)


def test_a_refusal_of_the_system_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error that nothing else has explained still has its code, and names the file."""
    raises(monkeypatch, OSError(5, "Input/output error", "/q/format"))
    assert run("list") == (74, "", "Error: Input/output error: /q/format\n")


def test_an_interrupt_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command without a word, with the code that a shell gives it."""
    raises(monkeypatch, KeyboardInterrupt())
    assert run("list") == (130, "", "")


def test_a_bug_is_shown_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody expected comes with its traceback and a code of its own."""
    raises(monkeypatch, ZeroDivisionError("oops"))
    code, stdout, stderr = run("list")
    assert (code, stdout) == (70, "")
    assert stderr.startswith("Traceback (most recent call last):\n")
    assert stderr.endswith("ZeroDivisionError: oops\n")


# --- streams ------------------------------------------------------------------------------------


def test_a_full_stdout_is_an_io_error(store_dir: Path) -> None:
    """What cannot be printed was not done, and is told once: it is not the store that is full."""
    message = "Error: stdout cannot be written: No space left on device\n"
    for words in (["list", "--json"], ["config", "get", "timeout"], ["--version"], ["--help"]):
        with open("/dev/full", "w") as full:
            done = queuectl_process(*words, store_dir=store_dir, stdout=full)
        assert (done.returncode, done.stderr) == (74, message)


@pytest.mark.parametrize(
    "words", ["config get timeout", "--version", "--help", "list --help", "help", "logs --raw job"]
)
def test_a_closed_stdout_is_an_io_error(store_dir: Path, place: Placing, words: str) -> None:
    """Data that has nowhere to go is not lost without a word."""
    place.dead("job", runs=1)
    place.log("job", 1, b"output\n")
    done = queuectl_process(*words.split(), store_dir=store_dir, preexec_fn=lambda: os.close(1))
    message = "Error: stdout is closed: open it, or send it to /dev/null\n"
    assert (done.returncode, done.stderr) == (74, message)


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_closed_stream_is_no_file_of_the_store(store_dir: Path, descriptor: int) -> None:
    """Nothing that is printed lands in a file that got the number of a stream."""
    done = queuectl_process(
        "enqueue", "true", store_dir=store_dir, preexec_fn=lambda: os.close(descriptor)
    )
    assert done.returncode == (74 if descriptor == 1 else 0)
    files = [path for path in store_dir.rglob("*") if path.is_file()]
    (document,) = (store_dir / "pending").iterdir()
    assert document.read_text().startswith('{\n  "schema": 1,\n')
    assert {path.name for path in files} <= {"format", "pending.lock", document.name}
    assert (store_dir / "format").read_text() == "1\n"


def test_a_reader_that_has_left_is_no_error(store_dir: Path) -> None:
    """`queuectl list | head` is quiet, as other programs are."""
    reader, writer = os.pipe()
    os.close(reader)
    done = queuectl_process("config", "list", store_dir=store_dir, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_stderr_that_cannot_be_written_leaves_the_exit_code(store_dir: Path) -> None:
    """The code says what is wrong where nothing else can."""
    with open("/dev/full", "w") as full:
        done = queuectl_process("show", "nope", store_dir=store_dir, stderr=full)
    assert (done.returncode, done.stdout) == (66, "")


def test_output_has_no_colour_and_no_escape(store_dir: Path) -> None:
    """Colour is for a terminal; a pipe gets text."""
    queuectl_process("enqueue", "true", store_dir=store_dir)
    for words in (["list"], ["status"], ["--help"], ["nope"]):
        done = queuectl_process(*words, store_dir=store_dir)
        assert "\x1b" not in done.stdout + done.stderr


# --- the way in ---------------------------------------------------------------------------------


def test_the_console_script_is_main(
    store_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What setup.cfg names takes its arguments from the command line and ends with the code."""
    monkeypatch.setattr(os, "_exit", sys.exit)
    # Under a locale that is not UTF-8 it would begin again in the place of the tests.
    monkeypatch.setattr("queuectl.cli.locale.restart", lambda: None)
    monkeypatch.setattr(sys, "argv", ["queuectl", "config", "get", "priority"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr() == ("5\n", "")
    monkeypatch.setattr(sys, "argv", ["queuectl", "nope"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    setup = Path(__file__).parents[2] / "setup.cfg"
    assert "queuectl = queuectl.cli:main\n" in setup.read_text()


def test_the_module_runs_like_the_script(store_dir: Path) -> None:
    """Python's -m is the same program."""
    done = queuectl_process("enqueue", "true", "--id", "a", store_dir=store_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")
    done = queuectl_process("enqueue", "true", "--id", "a", store_dir=store_dir)
    assert (done.returncode, done.stdout) == (65, "")
