"""Very many values are held packed, and come back as they went in."""

from operator import itemgetter

import pytest

from queuectl import packed
from queuectl.packed import Few, Made, Packed, Sorter


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 1000])
def test_values_come_back_from_either_end(count: int) -> None:
    """Whether the last block is packed or not, nothing is lost and the order is kept."""
    values = [(f"job-{number}", number) for number in range(count)]
    held = Packed(values)
    assert len(held) == count
    assert list(held) == values
    assert list(reversed(held)) == values[::-1]
    assert (("job-0", 0) in held) is bool(count)


@pytest.mark.parametrize("reverse", [False, True])
def test_values_are_sorted_in_parts(monkeypatch: pytest.MonkeyPatch, reverse: bool) -> None:
    """The order is that of sorted, also of what is equal, and iterating does not use it up."""
    monkeypatch.setattr(packed, "_PART", 300)
    values = [(number * 7919 % 1000 // 10, number) for number in range(1000)]
    in_order = Sorter(values, key=itemgetter(0), reverse=reverse)
    assert len(in_order) == 1000
    assert (values[5] in in_order, (0, -1) in in_order) == (True, False)
    for _ in range(2):
        assert list(in_order) == sorted(values, key=itemgetter(0), reverse=reverse)
    assert list(Sorter(["b", "a"])) == ["a", "b"]


def test_values_are_made_of_others_when_they_are_wanted() -> None:
    """Each time anew."""
    made = Made(Packed([1, 2, 3]), lambda values: (str(each) for each in values))
    assert list(made) == list(made) == ["1", "2", "3"]
    assert (len(made), "2" in made, "4" in made) == (3, True, False)


def test_a_message_names_the_first_of_many() -> None:
    """All of a few, and else twenty and how many more there are."""
    few = Few()
    assert not few
    for number in range(20):
        few.append(f"j{number}")
    names = " ".join(f"j{number}" for number in range(20))
    assert (bool(few), str(few)) == (True, names)
    few.append("j20")
    few.append("j21")
    assert str(few) == f"{names} and 2 more"
