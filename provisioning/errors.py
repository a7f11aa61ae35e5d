"""What this package raises when a person has to do something about it. Not for bugs.

Invariant: a message says what, which file or name, and what to do next.
"""

__all__ = ["ProvisioningError"]


class ProvisioningError(Exception):
    """Base of the package's errors."""
