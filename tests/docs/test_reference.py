"""The reference names every command, option, exit code and setting, as the program has them."""

import re
from collections.abc import Iterator

import click
from scripts.reference import BEGIN, renewed, walk
from tests.docs.pages import PAGES, ROOT, page_name

from queuectl import errors
from queuectl.cli.group import cli
from queuectl.config import KEYS, Settings, settings_document

PAGE = (ROOT / "docs" / "reference.md").read_text()
BY_HAND = PAGE.partition(BEGIN)[0]


def options() -> Iterator[tuple[str, str]]:
    """Yield each command's path with each of its options."""
    for ctx, command in walk(cli, "queuectl"):
        for parameter in command.get_params(ctx):
            if isinstance(parameter, click.Option) and not parameter.hidden:
                for name in (*parameter.opts, *parameter.secondary_opts):
                    yield ctx.command_path, name


def test_the_reference_is_what_help_prints() -> None:
    """A help that was changed is written into the page by scripts/reference."""
    assert renewed(PAGE) == PAGE, "docs/reference.md is not current: run scripts/reference"


def test_each_option_stands_in_the_section_of_its_command() -> None:
    """Nothing that a user can type is missing."""
    missing = []
    for path, option in set(options()):
        section = PAGE.partition(f"\n### {path}\n")[2].partition("\n### ")[0]
        if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", section):
            missing.append(f"{path} {option}")
    assert missing == []


def test_each_setting_stands_there_with_its_default() -> None:
    """The table of the settings is that of the program."""
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|", BY_HAND, re.MULTILINE)
    assert dict(rows) == settings_document(Settings())
    assert tuple(key for key, _ in rows) == KEYS


def test_each_exit_code_of_an_error_stands_there() -> None:
    """A script can rely on the table."""
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", BY_HAND, re.MULTILINE)}
    kinds = [errors.QueuectlError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} - listed == set()


def test_what_pages_say_of_options_exists() -> None:
    """An option that was renamed is found wherever a page writes it as code."""
    known = {name for _, name in options()}
    # Those of other programs, which the pages name as well.
    others = {"--group", "--user", "--now", "--randomly-seed", "--detach-on-destroy", "--fix"}
    for page in PAGES:
        text = page.read_text()
        for line in re.findall(r"queuectl [^`\n]*", text):
            command = line.partition(" -- ")[0]
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", command):
                assert option in known | others, f"{page_name(page)}: {option} in {line}"
