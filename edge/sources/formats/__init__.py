"""What coolers send, as readings: bytes in, readings or one Refusal out. No decoder raises or allocates by a length that it was told.

Each format is an object made once per topic mapping with ``decode(payload, origin) -> tuple[Reading, ...] | Refusal``.
"""

from typing import Protocol

from edge.settings import MqttTopic
from edge.sources.formats.json_fields import JsonFields
from edge.sources.formats.raw_profile import RawProfile
from edge.sources.formats.senml import Senml
from edge.sources.origin import Origin
from protocol.reading import Reading
from protocol.refusal import Refusal

__all__ = ["Format", "format_of"]


class Format(Protocol):
    """A decoder of one kind of payload."""

    def decode(self, payload: bytes, origin: Origin) -> tuple[Reading, ...] | Refusal:
        """Return the readings in ``payload``, or why there are none; all or nothing."""
        ...


def format_of(topic: MqttTopic) -> Format:
    """Return the decoder that a topic mapping asks for."""
    if topic.format == "senml":
        return Senml(topic)
    return JsonFields(topic) if topic.format == "json" else RawProfile()
