"""What the gateway agent raises when the world or its owner has to change something. Not for bugs, and not for bad input.

Invariant: a message says what, which file or id, and what to do next. Bad input is a ``Refusal``, a bug is an assertion.
"""

__all__ = ["EdgeError"]


class EdgeError(Exception):
    """Base of the package's errors."""
