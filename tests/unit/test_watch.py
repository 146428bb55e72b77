"""Watches that processes share."""

import os
import select
from pathlib import Path

from queuectl.store.watch import Watch


def test_a_fork_that_closes_a_watch_takes_nothing_away(tmp_path: Path) -> None:
    """RACE: a worker that leaves closes what its supervisor watches, too."""
    watch = Watch(str(tmp_path))
    pid = os.fork()
    if pid == 0:
        watch.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    (tmp_path / "a").touch()
    assert watch.fd is not None
    assert select.select([watch.fd], [], [], 1)[0]
    assert "a" in (watch.arrivals() or [])
    watch.close()


def test_a_directory_is_watched_once(tmp_path: Path) -> None:
    """Whoever drains asks for it at each rest."""
    watch = Watch()
    for _ in range(100):
        watch.add_departures(str(tmp_path))
    assert len(watch._watched) <= 1
    watch.close()
