"""Workers: a pool of processes that claim jobs, run their commands and settle them."""

from queuectl.worker.pool import run_pool
from queuectl.worker.stop import stop_all

__all__ = ["run_pool", "stop_all"]
