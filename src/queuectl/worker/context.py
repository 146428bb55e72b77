"""What the workers of one process share."""

from dataclasses import dataclass

from queuectl.config import Settings
from queuectl.store.logs import LogDir
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Queue
from queuectl.worker.events import ReportedProblems
from queuectl.worker.loop import Loop
from queuectl.worker.settler import Settler
from queuectl.worker.signals import StopSignals
from queuectl.worker.workdir import WorkDirs


@dataclass(slots=True, eq=False)
class WorkerContext:
    """The store, the event loop and the other things that all workers of a process use.

    ``queue`` is the store's part for workers; ``settings`` are those at the last claim; ``env`` is
    what every command inherits.
    """

    store: Store
    queue: Queue
    loop: Loop
    signals: StopSignals
    problems: ReportedProblems
    settler: Settler
    workdirs: WorkDirs
    logs: LogDir
    env: dict[bytes, bytes]
    drain: bool
    settings: Settings

    def check_stop_request(self, worker: str) -> None:
        """Obey a request to stop that has come to a worker directly, past its supervisor."""
        self.signals.request(self.queue.stop_level(worker))
