"""What is wrong is reported once, and a hundred of a kind at most."""

from typing import cast

from queuectl.worker import Talk, Troubles


class _Lines:
    """Take lines as a Talk does, and keep them."""

    def __init__(self) -> None:
        """Start with none."""
        self.lines: list[str] = []

    def error(self, text: str) -> None:
        """Take a line."""
        self.lines.append(text)


def test_very_many_troubles_of_a_kind_are_neither_reported_nor_held() -> None:
    """A hundred are, and then that there are more; it begins again when they are over."""
    talk = _Lines()
    troubles = Troubles(cast("Talk", talk))
    for _ in range(2):
        for number in range(10_000):
            troubles.tell("recover", f"cannot recover job {number}")
    assert talk.lines[:2] == ["cannot recover job 0", "cannot recover job 1"]
    assert talk.lines[100:] == ["reports no more of this kind until it is over"]
    assert len(troubles._told["recover"]) == 100
    troubles.tell("settle", "keeps an ended job")
    assert talk.lines[-1] == "keeps an ended job"
    troubles.are_over("recover")
    assert not troubles.has("recover")
    troubles.tell("recover", "cannot recover job 7")
    assert talk.lines[-1] == "cannot recover job 7"
