"""Look after what no worker has in hand, for a whole pool and beside all that its workers do.

The supervisor does it: each process of workers would do the same once more, and one that has become
busy would not go on with it.
"""

import time

from queuectl.errors import ConfigError, StoreError, UnsafeStore
from queuectl.store.base import Store
from queuectl.worker import Talk, Troubles, recover

_UNOWNED_SECONDS = 1.0
_LOST_SECONDS = 5.0  # another pool may be killed as a whole
_BLOCKED_SECONDS = 10.0
_NONE_BLOCKED_SECONDS = 60.0


class Caretaker:
    """What finds lost jobs, ends overdue commands and lets go on what is blocked in vain."""

    def __init__(self, store: Store, talk: Talk) -> None:
        """Take the store; nothing is looked at before go_on, which looks at everything first."""
        self._store = store
        self._talk = talk
        self._troubles = Troubles(talk)
        self._is_tidy = False
        self._recover_at = 0.0
        self._release_at = 0.0

    def go_on(self) -> None:
        """Do what it is time to do."""
        if time.monotonic() >= self._recover_at:
            self.recover()
        if not self._is_tidy:
            self._is_tidy = True
            self._tidy()
        if time.monotonic() >= self._release_at:
            self._release_blocked()

    def pause_seconds(self) -> float:
        """Return in how many seconds it is time to go on."""
        return max(0.0, min(self._recover_at, self._release_at) - time.monotonic())

    def recover(self) -> None:
        """Settle the claims that nobody holds, a worker having died, and say which."""
        report = recover(self._store)
        again_seconds = _UNOWNED_SECONDS if report.unowned else _LOST_SECONDS
        self._recover_at = time.monotonic() + again_seconds
        for problem in report.problems:
            self._troubles.tell("recover", f"cannot recover: {problem}")
        if not report.problems:
            self._troubles.are_over("recover")
        self._talk.report(report)

    def _tidy(self) -> None:
        try:
            self._store.tidy()
        except StoreError as error:  # what stays is in nobody's way, and the next pool's
            self._talk.error(str(error))

    def _release_blocked(self) -> None:
        again_seconds = _BLOCKED_SECONDS
        try:
            if not self._store.release_blocked():
                again_seconds = _NONE_BLOCKED_SECONDS
        except (ConfigError, StoreError, UnsafeStore) as error:
            self._troubles.tell("release", f"leaves jobs blocked: {error}")
        else:
            self._troubles.are_over("release")
        self._release_at = time.monotonic() + again_seconds
