"""What a shell is told when somebody presses Tab."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.cli.terminal import needs_tmux, opened
from tests.jobs import make_job
from tests.process.support import until

import queuectl
from queuectl.cli.group import COMMANDS
from queuectl.job import State
from queuectl.store import open_store

BASH = shutil.which("bash")


class Complete:
    """Ask as the script of a shell does."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run = run
        self._monkeypatch = monkeypatch

    def __call__(self, line: str) -> list[str]:
        """Return what can stand at the end of a command line."""
        with self._monkeypatch.context() as patch:
            patch.setenv("_QUEUECTL_COMPLETE", "bash_complete")
            patch.setenv("COMP_WORDS", line)
            patch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
            code, stdout, stderr = self._run()
        assert code in (0, 1)  # 1 where there is nothing to be said; no shell looks at it
        assert stderr == ""
        return [item.removeprefix("plain,") for item in stdout.split("\n") if item]


@pytest.fixture
def complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Return what completes a command line on the test's store."""
    return Complete(run, monkeypatch)


@pytest.fixture
def one_in_each_state(place: Placing) -> None:
    """Fill the store with a job in each state that is called after it, and one more dead."""
    for state in State:
        if state is not State.BLOCKED:
            place.job(state, f"j-{state}")
    place.dead("other")
    blocked = place.store_dir / "blocked" / "j-pending"
    blocked.mkdir(mode=0o700)
    path = place.job(State.PENDING, "j-blocked", after=("j-pending",))
    path.rename(blocked / "j-blocked.json")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("queuectl ", list(COMMANDS)),
        ("queuectl s", ["show", "status"]),
        ("queuectl --s", ["--store"]),
        ("queuectl dlq ", ["list", "purge", "retry", "show"]),
        ("queuectl list --st", ["--state"]),
        ("queuectl list --state d", ["dead"]),
        ("queuectl list --state ", [str(state) for state in State]),
        ("queuectl enqueue --if-exists ", ["fail", "skip"]),
        ("queuectl config get b", ["backoff-base", "backoff-max", "backoff-jitter"]),
        ("queuectl config set timeout ", []),
        ("queuectl config unset ti", ["timeout"]),
        ("queuectl completion ", ["bash", "zsh", "fish"]),
        ("queuectl help st", ["status"]),
        ("queuectl help dlq r", ["retry"]),
        ("queuectl help show ", []),
        ("queuectl help nonsense ", []),
    ],
)
def test_commands_options_states_and_keys(
    complete: Complete, line: str, expected: list[str]
) -> None:
    """What is fixed comes without a store, and makes none."""
    assert complete(line) == expected


EVERY = {f"j-{state}" for state in State}


@pytest.mark.usefixtures("one_in_each_state")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("queuectl show ", {*EVERY, "other"}),
        ("queuectl show j-d", {"j-dead"}),
        ("queuectl logs j-c", {"j-completed", "j-cancelled"}),
        ("queuectl wait o", {"other"}),
        ("queuectl wait j-dead o", {"other"}),
        ("queuectl dlq show ", {"j-dead", "other"}),
        ("queuectl dlq retry ", {"j-dead", "other"}),
        ("queuectl dlq retry other ", {"j-dead"}),
        ("queuectl cancel ", {"j-pending", "j-processing", "j-blocked"}),
        ("queuectl retry ", {"j-completed", "j-cancelled"}),
        ("queuectl enqueue true --after j-p", {"j-pending", "j-processing"}),
        ("queuectl show j-dead ", set()),
    ],
)
def test_ids_are_those_that_the_command_accepts(
    complete: Complete, line: str, expected: set[str]
) -> None:
    """And not those that stand there already."""
    found = complete(line)
    assert sorted(found) == found
    assert set(found) == expected


def test_the_store_is_that_of_the_command_line(
    complete: Complete, place: Placing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--store before the command counts, as it will when the line is run."""
    place.job(State.PENDING, "there")
    monkeypatch.setenv("QUEUECTL_STORE", str(tmp_path / "none"))
    assert complete("queuectl show ") == []
    assert complete(f"queuectl --store {place.store_dir} show ") == ["there"]


def test_nothing_is_said_of_a_store_that_cannot_be_used(
    complete: Complete, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, unsafe, no store or nonsense: no candidates, no error, and nothing is made."""
    place.job(State.PENDING, "there")
    place.store_dir.chmod(0o777)
    assert complete("queuectl show ") == []
    for location in (str(place.store_dir / "none"), "/etc", "nonsense://x", "/dev/null"):
        monkeypatch.setenv("QUEUECTL_STORE", location)
        assert complete("queuectl show ") == []
    assert not (place.store_dir / "none").exists()


def test_a_question_that_makes_no_sense_is_not_answered(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback lands in the middle of a command line."""
    for instruction in ("nonsense", "bash_complete", "zsh_nonsense"):
        monkeypatch.setenv("_QUEUECTL_COMPLETE", instruction)
        monkeypatch.delenv("COMP_WORDS", raising=False)
        assert run() == (1, "", "")


def test_an_id_comes_quickly_out_of_many(place: Placing) -> None:
    """Somebody waits for it: names are streamed, and looked at whole only where they match."""
    needle = place.job(State.PENDING, "needle")
    stem = str(needle).removesuffix("needle.json")
    for number in range(50_000):
        os.link(needle, f"{stem}hay-{number}.json")
    store = open_store(str(place.store_dir))
    try:
        begin = time.process_time()
        assert list(store.ids(State.PENDING, "nee")) == ["needle"]
        took = time.process_time() - begin
    finally:
        store.close()
    assert took < 0.2  # half as many as must be done in that time, on a machine as slow


def test_of_many_ids_a_thousand_come(complete: Complete, place: Placing) -> None:
    """No shell can show more so that a person could choose."""
    for number in range(1100):
        place.job(State.PENDING, f"job-{number}")
    assert len(complete("queuectl show ")) == 1000
    assert complete("queuectl show job-109") == ["job-109", *(f"job-109{n}" for n in range(10))]


# --- real shells ---


@pytest.fixture
def shell_env(place: Placing, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which queuectl is found on the PATH."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    program = bin_dir / "queuectl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m queuectl "$@"\n')
    program.chmod(0o755)
    return {
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "QUEUECTL_STORE": str(place.store_dir),
        "PYTHONPATH": str(Path(queuectl.__file__).parents[1]),
    }


_ASK = """
source <(queuectl completion bash)
complete -p queuectl > /dev/null || exit
COMP_WORDS=(%s) COMP_CWORD=%d
_queuectl_completion queuectl
printf '%%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["queuectl", "dlq", "retry", "ba"], ["bad-1", "bad-2"]),
        (["queuectl", "list", "--state", "can"], ["cancelled"]),
        (["queuectl", "conf"], ["config"]),
    ],
)
def test_bash_completes(
    shell_env: dict[str, str], place: Placing, words: list[str], expected: list[str]
) -> None:
    """The script that is printed works in the shell that it is for."""
    place.dead("bad-1")
    place.dead("bad-2")
    place.dead("good")
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", _ASK % (" ".join(words), len(words) - 1)],
        env=shell_env,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert (done.stdout.split(), done.stderr) == (expected, "")


# A shell, without what its user has written for it, and how it gets to know the script.
_SHELLS = {
    "bash": ("bash --norc", """eval "$(queuectl completion bash)" """),
    # As files that the shell itself looks for and loads.
    "zsh": (
        "zsh -f",
        (
            "queuectl completion zsh > {0}/_queuectl; fpath=({0} $fpath);"
            " autoload -U compinit; compinit -u -D"
        ),
    ),
    "fish": (
        "fish --no-config",
        "queuectl completion fish > {0}/queuectl.fish; set -p fish_complete_path {0}",
    ),
}


@needs_tmux
@pytest.mark.parametrize("name", _SHELLS)
def test_the_tab_key_completes(place: Placing, name: str) -> None:
    """Typed in a terminal: what is unique is filled in, of what is not the beginning."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    place.dead("bad-1")
    place.dead("bad-2")
    shell, setup = _SHELLS[name]
    with opened(place.store_dir, shell) as terminal:
        terminal.type(setup.format(terminal.directory) + '; echo rea""dy', "Enter")
        terminal.shows("ready")
        terminal.type("queuectl dl", "Tab")
        terminal.shows("queuectl dlq")
        terminal.type("ret", "Tab")
        terminal.shows("queuectl dlq retry")
        terminal.type("b", "Tab")
        terminal.shows("queuectl dlq retry bad-")
        if name == "zsh":
            terminal.type("C-d")  # lists what can follow
        if name != "bash":
            assert " dead" in terminal.shows("bad-1").replace("(", " ")  # the state of both
        terminal.type("2", "Tab", "Enter")
        until(lambda: not (place.store_dir / "dead" / "bad-2.json").exists(), "it is retried")
    assert (place.store_dir / "dead" / "bad-1.json").exists()


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _queuectl_completion queuectl"),
        ("zsh", "#compdef queuectl"),
        ("fish", "complete --no-files --command queuectl"),
    ],
)
def test_a_script_is_printed_for_each_shell(run: Run, shell: str, line: str) -> None:
    """Where the shell itself is not there, too, so that it can be packaged."""
    code, stdout, stderr = run("completion", shell)
    assert (code, stderr) == (0, "")
    assert line in stdout
    program = shutil.which(shell)
    if program:
        subprocess.run([program, "-n"], input=stdout, text=True, check=True, timeout=20)


def test_an_unknown_shell_is_a_usage_error(run: Run) -> None:
    """The message names those that are known."""
    code, stdout, stderr = run("completion", "csh")
    assert (code, stdout) == (2, "")
    assert "'bash', 'zsh', 'fish'" in stderr


def test_ids_are_told_apart_by_their_state_where_a_shell_can(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zsh and fish show it beside each id."""
    place.dead("bad-1")
    assert json.loads(run("show", "bad-1", "--json").stdout)["id"] == make_job("bad-1").id
    monkeypatch.setenv("_QUEUECTL_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_WORDS", "queuectl show ")
    monkeypatch.setenv("COMP_CWORD", "")
    assert run() == (0, "plain,bad-1\tdead\n", "")
