"""Workers that choose the name of another one."""

from tests.process.support import Queue, until

# As sitecustomize, this makes each pool choose the same names, one after the other.
SAME_NAMES = """
import random
names = iter("abcdefgh")
random.SystemRandom.choices = lambda self, population, k: next(names) * k
"""


def test_second_worker_of_a_name_chooses_another(queue: Queue) -> None:
    """It says so, and the first one keeps its record, and can be asked to cancel."""
    env = queue.replacing("sitecustomize", SAME_NAMES)
    gate = queue.gate()
    queue.enqueue(gate.wait, "first")
    queue.pool(env=env).ready()
    gate.reached()
    second = queue.pool(env=env).ready()
    assert sorted(each["name"] for each in queue.records()) == ["w-aaaaa", "w-bbbbb"]
    until(lambda: "w-aaaaa" in second.talk(), "the second tells")
    assert second.talk().split(" ", 1)[1] == "w-bbbbb renamed from w-aaaaa: that name is taken\n"
    assert queue("cancel", "first").exit_code == 0
    assert queue.history("cancelled", "first", "worker") == ["w-aaaaa"]
