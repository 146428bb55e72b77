"""Check the rules of a directory store on what is there, and repair what can be repaired.

Nothing is lost by a repair: what has no place goes to ``corrupt/`` with the reason beside it. It is
safe while workers run. What looks wrong is looked at once more, under its lock, before it is found:
a job that moved meanwhile is not there any more, and one that somebody holds is left to them.
"""

import os
from collections.abc import Iterator
from contextlib import closing

from queuectl.errors import StoreUnavailable, UnsafeStore
from queuectl.store.doctor.attempts import check_processing
from queuectl.store.doctor.belongings import check_logs, check_parents
from queuectl.store.doctor.case import Case, Finding
from queuectl.store.doctor.copies import check_met_twice
from queuectl.store.doctor.directories import check_directories
from queuectl.store.doctor.jobs import check_jobs
from queuectl.store.doctor.leftovers import check_tmp, check_workers
from queuectl.store.doctor.root import check_root
from queuectl.store.layout import DIRECTORIES, FILES, FOREIGN, ROOT

# In this order: a job that is met twice was met by the check of each job.
_CHECKS = (
    check_root,
    check_jobs,
    check_met_twice,
    check_processing,
    check_parents,
    check_logs,
    check_tmp,
    check_workers,
)


def examine(location: str, *, repair: bool) -> Iterator[Finding]:
    """Yield what is wrong with the store at a directory, and repair it where that is asked for.

    Raises: what opening a store raises where it is none, a newer one, or somebody else's.
    """
    location = os.path.abspath(location)
    try:
        names = {*os.listdir(location)} - {*FOREIGN}
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnavailable(f"{location} cannot be read: {error.strerror}") from error
    if not names:
        return
    found = []
    if "format" in names or names <= {*DIRECTORIES, *FILES}:
        found = list(check_directories(location, repair=repair))
        yield from found
    try:
        case = Case(location, repair=repair)
    except (UnsafeStore, StoreUnavailable) as error:
        if all(each.repaired for each in found):
            raise
        yield Finding("not looked at any further", ROOT, f"{error}; then again", note=True)
        return
    with closing(case):
        for check in _CHECKS:
            # Each is done before it is reported: a slow reader must not make others wait for a
            # lock.
            yield from list(check(case))
