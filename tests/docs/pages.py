"""Read the project's Markdown pages: their code blocks, and what a console shows in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "tests/README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^( *)```(.*)$")


class Block(NamedTuple):
    """Hold one fenced block: its language, the words after that, and where its first line is."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int

    @property
    def save_as(self) -> str | None:
        """Return the file that the page tells its reader to make of this block."""
        for word in self.words:
            if word.startswith("save-as="):
                return word.removeprefix("save-as=")
        return None


class Example(NamedTuple):
    """Hold one command and the lines that it is shown to print.

    ``exit_code`` is what it has to end with, None where the page shows that by other means.
    """

    command: str
    output: tuple[str, ...]
    line: int
    exit_code: int | None = None


def page_name(path: Path) -> str:
    """Return how a page is called in messages."""
    return path.relative_to(ROOT).as_posix()


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    inside: list[str] | None = None
    info: list[str] = []
    indent = first = 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is None:
            if inside is not None:
                inside.append(line[indent:])
        elif inside is None:
            indent, info, inside, first = len(fence[1]), fence[2].split(), [], number + 1
        else:
            yield Block(info[0] if info else "", tuple(info[1:]), "\n".join(inside) + "\n", first)
            inside = None
    assert inside is None, f"the block of line {first - 1} is not closed"


def examples(block: Block) -> Iterator[Example]:
    """Yield the commands of a console block; lines that begin with "> " go on with a command."""
    command: list[str] = []
    output: list[str] = []
    line = block.line
    for number, text in enumerate(block.text.splitlines(), block.line):
        if text.startswith("$ "):
            if command:
                yield Example("\n".join(command), tuple(output), line)
            command, output, line = [text[2:]], [], number
        elif text.startswith("> ") and not output:
            command.append(text[2:])
        else:
            assert command, f"line {number}: a console block begins with a command"
            output.append(text)
    if command:
        yield Example("\n".join(command), tuple(output), line)


def matches(shown: tuple[str, ...], printed: tuple[str, ...]) -> bool:
    """Tell whether what a page shows stands for what was printed.

    In a line, ``...`` stands for any text; a line that is nothing else, for any number of lines.
    Any number of spaces counts as one, since dots are not as wide as what they stand for.
    """
    parts = []
    for line in map(_one_space, shown):
        if line == "...":
            parts.append(r"(?:.*\n)*")
        else:
            parts.append(".*".join(map(re.escape, line.split("..."))) + r"\n")
    return (
        re.fullmatch("".join(parts), "".join(_one_space(line) + "\n" for line in printed))
        is not None
    )


def _one_space(line: str) -> str:
    return re.sub(r"\s+", " ", line.rstrip())
