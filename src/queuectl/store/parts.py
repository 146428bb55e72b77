"""The parts of an open store beyond its core, each loaded and made when it is first asked for.

Most commands need few of them, and start the sooner.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from queuectl.store.core import Core

if TYPE_CHECKING:
    from queuectl.store.adopting import Adopter
    from queuectl.store.cancelling import Canceller
    from queuectl.store.chosen_ids import LockedAdder
    from queuectl.store.claiming import Claimer
    from queuectl.store.dependencies import Dependencies
    from queuectl.store.recovery import Recovery
    from queuectl.store.retrying import Retrier
    from queuectl.store.scan import PendingScan
    from queuectl.store.settling import Settler
    from queuectl.store.waiting import Waiter


class Parts:
    """The parts of one open store; what each is for is said where its class stands."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def close(self) -> None:
        """Close the parts that were made and hold something open."""
        for part in ("scan", "settler"):
            if part in self.__dict__:
                getattr(self, part).close()

    @cached_property
    def dependencies(self) -> "Dependencies":
        """Return what places and releases blocked jobs."""
        from queuectl.store.dependencies import Dependencies

        return Dependencies(self.core)

    @cached_property
    def locked_adder(self) -> "LockedAdder":
        """Return what adds jobs with chosen ids, or that wait for others, and all others too."""
        from queuectl.store.chosen_ids import LockedAdder

        return LockedAdder(self.core, lambda: self.dependencies)

    @cached_property
    def retrier(self) -> "Retrier":
        """Return what sends finished jobs back."""
        from queuectl.store.retrying import Retrier

        return Retrier(self.core, lambda: self.dependencies)

    @cached_property
    def waiter(self) -> "Waiter":
        """Return what waits for the ends of jobs."""
        from queuectl.store.waiting import Waiter

        return Waiter(self.core)

    @cached_property
    def scan(self) -> "PendingScan":
        """Return what finds the next pending job."""
        from queuectl.store.scan import PendingScan

        return PendingScan(self.core.directory)

    @cached_property
    def adopter(self) -> "Adopter":
        """Return what takes in the files that others have put into pending/."""
        from queuectl.store.adopting import Adopter

        return Adopter(self.core, self.scan)

    @cached_property
    def claimer(self) -> "Claimer":
        """Return what claims jobs."""
        from queuectl.store.claiming import Claimer

        return Claimer(self.core, self.scan, self.adopter)

    @cached_property
    def settler(self) -> "Settler":
        """Return what settles claims, or gives them back."""
        from queuectl.store.settling import Settler

        return Settler(self.core, self.dependencies)

    @cached_property
    def recovery(self) -> "Recovery":
        """Return what settles the claims of processes that are gone."""
        from queuectl.store.recovery import Recovery

        return Recovery(self.core, self.dependencies, self.settler)

    @cached_property
    def canceller(self) -> "Canceller":
        """Return what cancels jobs."""
        from queuectl.store.cancelling import Canceller

        return Canceller(self.core, self.dependencies, self.recovery, self.adopter)
