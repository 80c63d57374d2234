"""Models this small run on one thread, as in the tests of the engines."""

from tests.engine.conftest import one_thread

__all__ = ["one_thread"]
