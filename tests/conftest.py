"""Set hypothesis up for machines that others share, and count the faults that tests have tried."""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# A test must not fail because the machine is slow at the moment: no clock decides here.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("large", settings.get_profile("shared"), max_examples=5000)
_LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
settings.load_profile("large" if _LARGE else "shared")

FAULT = "fault at a system call"  # a property of a test, once for each


def examples(few: int, many: int) -> int:
    """Return how many examples a test tries: few, or many with QUEUECTL_TEST_LARGE."""
    return many if _LARGE else few


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
