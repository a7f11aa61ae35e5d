"""Series: the names under which InfluxDB, the roll-ups and the dashboards know things: a panel cannot ask for what nobody writes.

Invariant: the tag set is fixed (InfluxDB 3 keeps a table's tags for ever), and no device-supplied text becomes a name: field names
come from profiles, which are ours.
"""

from dataclasses import dataclass

__all__ = ["COOLER", "COOLER_TAGS", "GATEWAY", "GATEWAY_FIELDS", "SMOOTH_SUFFIX", "CoolerTags", "smooth_field"]

COOLER = "cooler"
"""Measurement of a cooler's samples: one point per sample time, one field per channel of its profile."""

COOLER_TAGS = ("device", "gateway", "model", "site")
"""Alphabetical, as InfluxDB sorts them, so that no server has to."""

SMOOTH_SUFFIX = "_smooth"
"""A channel's smoothed value stands beside the raw one under this suffix; raw evidence is never overwritten by it."""

GATEWAY = "gateway"
"""Measurement of what a gateway's stream looks like from the cloud, written once a minute."""

GATEWAY_FIELDS = ("blocks", "facts", "rows", "gaps", "lag_ms")


@dataclass(frozen=True, slots=True)
class CoolerTags:
    """The values of ``COOLER_TAGS`` for one machine."""

    device: str
    gateway: str
    model: str
    site: str


def smooth_field(channel: str) -> str:
    """Return the field name of a channel's smoothed value."""
    return channel + SMOOTH_SUFFIX
