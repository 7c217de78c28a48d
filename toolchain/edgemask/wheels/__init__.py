"""The wheels that go into a release: pinned by digest, fetched for a foreign board, kept; and the runtime's own."""

from edgemask.wheels.fetching import glibc_for, wheels_for
from edgemask.wheels.lock import Pin, lock_for, pinned_pythons
from edgemask.wheels.own import runtime_wheel

__all__ = ["Pin", "glibc_for", "lock_for", "pinned_pythons", "runtime_wheel", "wheels_for"]
