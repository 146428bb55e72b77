"""Set hypothesis up for machines that others share, and count the faults that tests have tried."""

import gc
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tests import program  # noqa: F401  (which handles SIGCHLD again)

# A test must not fail because the machine is slow at the moment: no clock decides here.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("large", settings.get_profile("shared"), max_examples=5000)
_LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
settings.load_profile("large" if _LARGE else "shared")

FAULT = "fault at a system call"  # a property of a test, once for each


def examples(few: int, many: int) -> int:
    """Return how many examples a test tries: few, or many with QUEUECTL_TEST_LARGE."""
    return many if _LARGE else few


def _open_fds() -> dict[int, str]:
    """Return the descriptors of this process, with what each is of where the system tells."""
    found = {}
    for name in os.listdir("/dev/fd"):
        try:
            found[int(name)] = os.readlink(f"/dev/fd/{name}")
        except OSError:  # the one that listed them, or a system that does not tell
            continue
    return found


# Where tests run in this process, most of them: their descriptors are those of the next test.
_RINGS = ("unit", "contract", "directory", "cli", "process", "property")
_CHECKED = tuple(f"tests/{ring}/" for ring in _RINGS)
_FDS = pytest.StashKey[dict[int, str]]()
_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Take note of what is open before a test."""
    if item.nodeid.startswith(_CHECKED):
        item.stash[_FDS] = _open_fds()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Take note of a test that passes: the traceback of another one holds what it had open."""
    yield
    item.stash[_PASSED] = True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that leaves descriptors open: later ones of the same process run out of them."""
    yield
    before = item.stash.get(_FDS, None)
    if before is None or not item.stash.get(_PASSED, False):
        return
    if len(_open_fds()) > len(before):
        gc.collect()
        after = _open_fds()
        left = sorted(what for fd, what in after.items() if before.get(fd) != what)
        assert len(after) <= len(before), f"the test leaves open {left}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults of each kind the program has met at its system calls."""
    met = Counter(
        kind
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, kind in report.user_properties
        if name == FAULT
    )
    if met:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(met.items()))
        terminalreporter.write_line(f"faults at system calls: {met.total()} ({kinds})")
