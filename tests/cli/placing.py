"""Put jobs, logs and workers into a store where a test wants them, without running anything."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.jobs import attempt, make_job

from queuectl.clock import format_instant
from queuectl.document import encode_job
from queuectl.job import Job, State, log_name
from queuectl.store import files, open_store
from queuectl.store.names import filed_name, pending_name, processing_name


class Placing:
    """Fill one store."""

    def __init__(self, store_dir: Path) -> None:
        self.store_dir = store_dir
        self._locked: list[int] = []
        open_store(str(store_dir), create=True).close()

    def job(self, state: State, job_id: str, *, ago: float = 5.0, **changes: Any) -> Path:
        """File a job in a state, where it came ``ago`` seconds ago; pending ones go by run_at."""
        job = make_job(job_id, **changes)
        path = self.store_dir / state / self._name(state, job)
        path.write_bytes(encode_job(job._replace(state=state)))
        self.age(path, ago)
        return path

    def dead(self, job_id: str, *, runs: int = 3, ago: float = 5.0, **changes: Any) -> Path:
        """File a job that failed for good after some runs."""
        history = tuple(attempt(job_id, number) for number in range(1, runs + 1))
        fields = {"attempts": runs, "history": history}
        return self.job(State.DEAD, job_id, ago=ago, **(fields | changes))

    @staticmethod
    def _name(state: State, job: Job) -> str:
        if state is State.PENDING:
            return pending_name(job.priority, job.run_at, job.id)
        if state is State.PROCESSING:
            return processing_name(job.id, job.next_attempt)
        return filed_name(job.id)

    @staticmethod
    def age(path: Path, seconds: float) -> None:
        """Make a file look as if it was changed so long ago."""
        at = (datetime.now(UTC) - timedelta(seconds=seconds)).timestamp()
        os.utime(path, (at, at))

    def log(self, job_id: str, number: int, data: bytes) -> Path:
        """Write to the log of an attempt, as its command would."""
        path = self.log_path(job_id, number)
        # By its path: a LogDir, which a worker has one of, keeps the directory open.
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        return path

    def log_path(self, job_id: str, number: int) -> Path:
        """Return where the log of an attempt is."""
        return self.store_dir / "logs" / log_name(job_id, number)

    def worker(self, name: str, since: datetime, **changes: Any) -> None:
        """Write the record of a worker that lives until close."""
        record = {"name": name, "pid": 4711, "host": "box", "since": format_instant(since)}
        fd = os.open(self.store_dir / "workers" / f"{name}.json", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, json.dumps({"job": None, "attempt": None} | record | changes).encode())
        assert files.lock(fd)
        self._locked.append(fd)

    def close(self) -> None:
        """Let the workers die."""
        for fd in self._locked:
            os.close(fd)
