"""Very many values are held packed, and come back as they went in."""

import pytest

from queuectl.packed import Packed


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 1000])
def test_values_come_back_from_either_end(count: int) -> None:
    """Whether the last block is packed or not, nothing is lost and the order is kept."""
    values = [(f"job-{number}", number) for number in range(count)]
    packed = Packed(values)
    assert len(packed) == count
    assert list(packed) == values
    assert list(reversed(packed)) == values[::-1]
    assert (("job-0", 0) in packed) is bool(count)
