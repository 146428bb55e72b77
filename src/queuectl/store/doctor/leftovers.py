"""Find what processes that are gone have left behind."""

import os
import stat
import time
from collections.abc import Iterator

from queuectl.store.channel import channel_owner, is_read
from queuectl.store.doctor.case import Case, Finding, foreign
from queuectl.store.names import filed_name
from queuectl.store.records import ABANDONED_SECONDS
from queuectl.store.spare_files import LEFT

_ADVICE = "a worker, or --repair, removes it"


def check_tmp(case: Case) -> Iterator[Finding]:
    """Find old files in tmp/."""
    owners = {str(record.pid) for record in case.core.records.live()}
    for name in list(case.directory.names("tmp")):
        parts = name.split(".")
        if parts[0] == "spare" and parts[1:2] and parts[1] in owners:
            continue  # a live worker writes to it again when there is a job
        if name.startswith(LEFT):
            continue  # the next worker takes it, or tidies it away
        with case.documents.locked("tmp", name) as fd:
            if fd is None or time.time() - os.fstat(fd).st_mtime < ABANDONED_SECONDS:
                continue
            if case.repair:
                os.unlink(name, dir_fd=case.directory.fd("tmp"))
        yield case.finding("abandoned file", f"tmp/{name}", _ADVICE, "was removed")


def check_workers(case: Case) -> Iterator[Finding]:
    """Find what workers left that are gone: a record that can be locked, a FIFO without one."""
    stale = []
    for name in list(case.directory.names("workers")):
        owner = channel_owner(name)
        if owner is not None:
            status = case.status("workers", name)
            is_alone = not case.directory.exists("workers", filed_name(owner))
            if status is not None and stat.S_ISDIR(status.st_mode):
                yield foreign("workers", name)
            elif is_alone and not is_read(case.directory.fd("workers"), owner):
                stale.append(name)
        elif not name.endswith(".json"):
            yield foreign("workers", name)
        else:
            yield from case.check_file("workers", name)
            with case.documents.locked("workers", name) as fd:
                if fd is not None and not case.core.records.is_needed(fd):
                    stale.append(name)
    if stale and case.repair:
        case.core.records.tidy()
    for name in stale:
        # RACE: it may have been removed by its worker, which has just left.
        if case.repair or case.directory.exists("workers", name):
            what = "record of a worker that is gone"
            yield case.finding(what, f"workers/{name}", _ADVICE, "was removed")
