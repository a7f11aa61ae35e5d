"""What ``ingest`` raises. Refusals of input are values (``protocol.refusal``), not errors."""

__all__ = ["IngestError"]


class IngestError(Exception):
    """Base of the package's errors: the message says what, which id and what next."""
