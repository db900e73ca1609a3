"""The pytest plugin: fixtures computed once in a run, read by all its processes from the store."""

from .declaring import SharedFixture, shared_fixture

__all__ = ["SharedFixture", "shared_fixture"]
