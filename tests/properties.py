"""Settings for property tests: the machine may be busy, so nothing depends on time."""

from hypothesis import HealthCheck, settings

unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
