"""Refusal: the named reason for which bytes from outside were not accepted. A value, never an exception.

Invariant: the names are on dead letters, metrics and pages for ever; a name is never reused for another reason.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Reason", "Refusal"]


class Reason(StrEnum):
    """The closed list of reasons."""

    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    BAD_MAGIC = "bad_magic"
    BAD_CHECKSUM = "bad_checksum"
    UNKNOWN_VERSION = "unknown_version"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_FLAGS = "unknown_flags"
    UNKNOWN_CODEC = "unknown_codec"
    BAD_ID = "bad_id"
    BAD_LENGTH = "bad_length"
    BAD_VALUE = "bad_value"
    BAD_COLUMNS = "bad_columns"
    BAD_QUALITY = "bad_quality"
    BAD_CBOR = "bad_cbor"
    NOT_CANONICAL = "not_canonical"
    BAD_FACT = "bad_fact"
    BAD_TOPIC = "bad_topic"
    FOREIGN_GATEWAY = "foreign_gateway"
    WRONG_LANE = "wrong_lane"
    UNKNOWN_GATEWAY = "unknown_gateway"
    REVOKED_GATEWAY = "revoked_gateway"
    UNKNOWN_PROFILE = "unknown_profile"
    BAD_JSON = "bad_json"
    BAD_SIGNATURE = "bad_signature"
    OLD_VERSION = "old_version"
    UNKNOWN_DEVICE = "unknown_device"
    INTERNAL = "internal"
    """Reading it raised an exception: our bug. The bytes are kept so that the repaired program can read them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why, and the detail that helps a person: never the bytes themselves."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        """Return ``reason: detail`` for a log field or a page."""
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)
