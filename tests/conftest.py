"""Set hypothesis up for machines that others share, and count the faults that tests have tried."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# A test must not fail because the machine is slow at the moment: no clock decides here.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


FAULT = "fault at a system call"  # a property of a test, once for each


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
