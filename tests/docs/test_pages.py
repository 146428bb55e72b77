"""What the pages say holds together: links lead somewhere, commands exist, units can be started."""

import configparser
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import click
import pytest
from scripts.reference import walk
from tests.docs.pages import PAGES, ROOT, blocks, page_name
from tests.docs.test_examples import Session

from queuectl.cli.group import cli
from queuectl.store import open_store

_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
# Where one machine has something and the next one has not; the Ada and u of examples do no harm.
_PRIVATE = re.compile(
    r"(?<![\w.~}])/(?:home(?!/(?:ada|u)\b)|media|mnt|opt|root|srv/\w|Users|work|workspace)/[\w.-]+"
)


def anchors(page: Path) -> set[str]:
    """Return the names of the headings of a page, as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_each_link_leads_somewhere(page: Path) -> None:
    """A page that is linked to is there, with its heading."""
    for target, anchor in _LINK.findall(prose(page)):
        if "://" in target:
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), f"{target}#{anchor}"


def test_each_page_can_be_reached_from_the_readme() -> None:
    """Who has only the README finds all the rest."""
    found = [ROOT / "README.md"]
    for page in found:
        for target, _ in _LINK.findall(prose(page)):
            linked = (page.parent / target).resolve()
            if linked.suffix == ".md" and linked not in found and "://" not in target:
                found.append(linked)
    assert set(PAGES) - set(found) == set()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_each_command_that_a_page_names_exists(page: Path) -> None:
    """What stands as `queuectl ...` in a sentence or a table can be typed."""
    known = {ctx.command_path.removeprefix("queuectl ") for ctx, _ in walk(cli, "queuectl")}
    groups = {
        ctx.command_path.removeprefix("queuectl ")
        for ctx, command in walk(cli, "queuectl")
        if isinstance(command, click.Group)
    }
    for words in re.findall(r"`queuectl ([a-z][^`]*)`", prose(page)):
        name, _, rest = words.partition(" ")
        assert name in known, words
        if name in groups and rest:
            assert f"{name} {rest.split(' ')[0]}" in known, words


def test_nothing_leads_outside_the_project() -> None:
    """Neither a page nor a source names a place that only its author's machine has."""
    files = [*ROOT.glob("*.*"), *(ROOT / ".ci").iterdir()]
    for directory in ("docs", "scripts", "src", "tests"):
        files += (ROOT / directory).rglob("*")
    kinds = {"", ".cfg", ".md", ".py", ".sh", ".toml", ".yaml"}
    outside = [
        place
        for path in files
        if path.is_file() and path.suffix in kinds and path.name != ".git"  # of a work tree
        for place in places(path)
    ]
    assert outside == []


def places(path: Path) -> list[str]:
    """Return the paths in a file that only some machine has."""
    text = path.read_text(errors="replace")
    return [f"{page_name(path)}: {found}" for found in _PRIVATE.findall(text)]


def test_the_systemd_unit_starts_workers_that_sigterm_ends_when_their_jobs_are_done(
    tmp_path: Path,
) -> None:
    """The command of the unit stays in the foreground; what runs at SIGTERM is finished."""
    page = (ROOT / "docs" / "how-to" / "systemd.md").read_text()
    [unit] = [block.text for block in blocks(page) if block.language == "ini"]
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(unit)
    assert parsed["Service"]["KillMode"] == "mixed"
    program, *arguments = shlex.split(parsed["Service"]["ExecStart"])
    assert program == "%h/.local/bin/queuectl"

    session = Session(tmp_path / "home")
    started, go_on = session.home / "started", session.home / "go-on"
    os.mkfifo(started)
    os.mkfifo(go_on)
    # Each side of a FIFO waits for the other, so the moment is forced.
    session.run([f"queuectl enqueue --id slow 'echo > {started}; read word < {go_on}'"])
    with (session.home / "journal").open("wb") as journal:
        service = subprocess.Popen(
            ["queuectl", *arguments],
            executable=session.home / "bin" / "queuectl",
            env=session.env,
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=journal,
        )
    try:
        started.read_text()
        service.send_signal(signal.SIGTERM)
        go_on.write_text("now\n")
        assert service.wait(30) == 0
    finally:
        service.kill()
        service.wait()
    store = open_store(str(session.home / ".queuectl"))
    assert store.get("slow").state == "completed"
    store.close()


def test_each_script_that_a_page_names_can_be_run() -> None:
    """What a newcomer types first is there and executable."""
    named = {
        name for page in PAGES for name in re.findall(r"\bscripts/\w+\b(?!\.)", page.read_text())
    }
    assert {"scripts/demo", "scripts/test"} <= named
    assert [name for name in named if not os.access(ROOT / name, os.X_OK)] == []
