"""Set hypothesis up for machines that others share, and for how much it is to try."""

import os

from hypothesis import HealthCheck, settings

# A test must not fail because the machine is slow at the moment: no clock decides here.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("large", settings.get_profile("shared"), max_examples=5000)
_LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
settings.load_profile("large" if _LARGE else "shared")


def examples(few: int, many: int) -> int:
    """Return how many examples a test tries: few, or many with QUEUECTL_TEST_LARGE."""
    return many if _LARGE else few
