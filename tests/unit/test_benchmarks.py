"""What the benchmarks say is what happened."""

import sys

from benchmarks.measure import usage_of
from benchmarks.peers.measures import Killed


def test_the_memory_of_a_program_is_its_own() -> None:
    """What the measuring process holds is not counted in what it starts."""
    held = bytearray(150 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])  # touched, so that it is resident
    _, peak_mb = usage_of((sys.executable, "-c", "pass"))
    assert peak_mb < 100


def test_the_fate_of_each_job_is_counted_once() -> None:
    """Lost, stuck and run twice are told apart by the log and by what the peer still shows."""
    killed = Killed()
    lines = ["begin 0", "end 0", "begin 1", "begin 2", "end 2", "begin 2", "end 2"]
    killed.count(lines, 4, left=1)
    assert killed == Killed(acknowledged=4, stuck=1, lost=1, twice=1)
    killed.count(["begin 0", "end 0"], 1, left=1)
    assert killed == Killed(acknowledged=5, stuck=1, lost=1, twice=1, unsettled=1)


def test_two_runs_at_once_are_told_from_two_in_turn() -> None:
    """Only a run that begins before the first has ended is beside it."""
    in_turn, at_once, cut_off = Killed(), Killed(), Killed()
    in_turn.count(["begin 0", "end 0", "begin 0", "end 0"], 1, left=0)
    at_once.count(["begin 0", "begin 0", "end 0", "end 0"], 1, left=0)
    cut_off.count(["begin 0", "begin 0", "end 0"], 1, left=0)
    assert (in_turn.twice, in_turn.together) == (1, 0)
    assert (at_once.twice, at_once.together) == (1, 1)
    assert (cut_off.twice, cut_off.together) == (0, 0)
