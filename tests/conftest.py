"""Set hypothesis up for machines that others share."""

from hypothesis import HealthCheck, settings

# A test must not fail because the machine is slow at the moment: no clock decides here.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
