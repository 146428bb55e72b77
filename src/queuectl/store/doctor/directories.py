"""Check the directories of a store: there, real, and this user's alone."""

import os
import stat
from collections.abc import Iterator

from queuectl.job import State
from queuectl.store import private
from queuectl.store.doctor.case import Finding, mode_finding
from queuectl.store.layout import DIRECTORIES, ROOT
from queuectl.store.names import filed_name, parse_filed


def check_directories(location: str, *, repair: bool) -> Iterator[Finding]:
    """Check that the directories are there, are directories, and are this user's alone."""
    yield from _check_directory(location, ROOT, repair=repair)
    for name in DIRECTORIES:
        if not os.path.lexists(os.path.join(location, name)):
            action = "was made" if repair else "--repair makes it"
            yield Finding("missing directory", name, action, repaired=repair)
            continue  # it is made when the store is opened
        yield from _check_directory(location, name, repair=repair)
    blocked = os.path.join(location, State.BLOCKED)
    if not os.path.islink(blocked) and os.path.isdir(blocked):
        for name in os.listdir(blocked):
            if parse_filed(filed_name(name)) and os.path.isdir(os.path.join(blocked, name)):
                yield from _check_directory(location, f"{State.BLOCKED}/{name}", repair=repair)


def _check_directory(location: str, name: str, *, repair: bool) -> Iterator[Finding]:
    path = os.path.join(location, name)
    try:
        status = os.stat(path) if name == ROOT else os.lstat(path)
    except FileNotFoundError:
        return  # a directory of blocked/ goes with its last job
    if not stat.S_ISDIR(status.st_mode):
        yield Finding("no directory", name, "replace it by a directory")
    elif status.st_uid != os.geteuid():
        yield Finding(f"belongs to user {status.st_uid}", name, "give it to its user")
    # A directory below one that gives its group to what is made in it does so, too.
    elif (mode := stat.S_IMODE(status.st_mode)) & ~stat.S_ISGID != private.DIRECTORY_MODE:
        # The path of the store may lead through symlinks.
        real = os.path.realpath(path) if name == ROOT else path
        repaired = repair and private.set_mode(real, private.DIRECTORY_MODE, status)
        yield mode_finding(mode, name, "0700", repaired=repaired)
