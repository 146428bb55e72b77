"""How the workers of a pool are spread over processes."""

import pytest

from queuectl.worker.pool import process_sizes


@pytest.mark.parametrize(
    ("count", "processors", "sizes"),
    [
        (1, 8, [1]),
        (2, 2, [1, 1]),
        (8, 2, [4, 4]),
        (7, 2, [3, 4]),
        (3, 64, [1, 1, 1]),
        (17, 1, [8, 9]),
        (1000, 2, [15] * 8 + [16] * 55),
    ],
)
def test_workers_share_processes_no_more_than_they_must(
    count: int, processors: int, sizes: list[int]
) -> None:
    """One process for each processor, sixteen workers in one at most, and all alike."""
    assert sorted(process_sizes(count, processors)) == sizes
