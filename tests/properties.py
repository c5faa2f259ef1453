"""Settings for property tests whose examples take longer; the rest of their settings is in tests/conftest.py."""

from hypothesis import settings

unhurried = settings(max_examples=settings().max_examples // 2)
