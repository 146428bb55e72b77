"""Look at what lies in a directory, so that two looks can be compared."""

import stat
from pathlib import Path


def tree(path: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return what lies in a directory: modes, owners, times and contents."""
    found = {}
    for each in [path, *sorted(path.rglob("*"))]:
        status = each.lstat()
        data = each.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        facts = (status.st_mode, status.st_uid, status.st_mtime_ns, data)
        found[str(each.relative_to(path))] = facts
    return found
