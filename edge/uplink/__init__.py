"""Uplink: what the outbox holds goes to the cloud, most urgent first, until the cloud has a receipt out for it. Not the store.

Invariant: PUBACK moves the window, the receipt deletes; whatever happens to the connection, a record is sent until it is receipted.
"""

from edge.uplink.sender import Uplink
from edge.uplink.status import UplinkCounts, UplinkStatus
from edge.uplink.window import UplinkLimits

__all__ = ["Uplink", "UplinkCounts", "UplinkLimits", "UplinkStatus"]
