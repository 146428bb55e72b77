"""What is wrong is reported once, and a hundred of a kind at most."""

from typing import cast

from queuectl.worker.events import EventLog, ReportedProblems


class _Lines:
    """Take lines as an EventLog does, and keep them."""

    def __init__(self) -> None:
        """Start with none."""
        self.lines: list[str] = []

    def error(self, text: str) -> None:
        """Take a line."""
        self.lines.append(text)


def test_very_many_problems_of_a_kind_are_neither_reported_nor_held() -> None:
    """A hundred are, and then that there are more; it begins again when they are over."""
    log = _Lines()
    problems = ReportedProblems(cast("EventLog", log))
    for _ in range(2):
        for number in range(10_000):
            problems.report("recover", f"cannot recover job {number}")
    assert log.lines[:2] == ["cannot recover job 0", "cannot recover job 1"]
    assert log.lines[100:] == ["not logging more of this kind until it is resolved"]
    assert len(problems._reported["recover"]) == 100
    problems.report("settle", "cannot record a finished job")
    assert log.lines[-1] == "cannot record a finished job"
    problems.resolve("recover")
    assert not problems.has("recover")
    problems.report("recover", "cannot recover job 7")
    assert log.lines[-1] == "cannot recover job 7"
