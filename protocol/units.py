"""Units: the names of the integers that travel, and the only conversions between them. Not a quantity library.

Invariant: a physical value inside the product is an integer *code* at the sensor's own step; ``Scale`` is the only way from a code to a
value in its unit and back. Floats exist on screens and in kernels, never in a fact, a block or a bill.
"""

import re
from dataclasses import dataclass
from typing import NewType

__all__ = ["DEVICE_ID", "GATEWAY_ID", "MS_PER_S", "DeviceId", "GatewayId", "Scale", "Unit", "is_device_id", "is_gateway_id"]

GatewayId = NewType("GatewayId", str)
"""The certificate's CN, the topic's fourth level and the block's gateway: one name, three places, always equal."""

DeviceId = NewType("DeviceId", str)
"""A cooler's serial number, lower case. Never its radio address: addresses change, serials do not."""

MS_PER_S = 1000

GATEWAY_ID = re.compile(r"gw-[a-z0-9-]{1,29}")
DEVICE_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,31}")

Unit = NewType("Unit", str)
"""A UCUM-like short name: ``degC``, ``l/min``, ``kPa``, ``A``, ``%``, ``V``, ``s``, ``1``. The closed list is ``profile.UNITS``."""


def is_gateway_id(text: str) -> bool:
    """Tell whether ``text`` may name a gateway: ``gw-`` and 1–29 of ``a-z 0-9 -`` (wildcards and controls must never reach a topic)."""
    return GATEWAY_ID.fullmatch(text) is not None


def is_device_id(text: str) -> bool:
    """Tell whether ``text`` may name a cooler: 3–32 of ``a-z 0-9 -``, not starting with a hyphen."""
    return DEVICE_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Scale:
    """How a code becomes a value: ``value = code * multiplier / 10 ** decimals``.

    Integers on purpose: 0.01 has no exact float, ``Scale(1, 2)`` is exact.
    """

    multiplier: int
    decimals: int

    @property
    def divisor(self) -> int:
        """Ten to the power of ``decimals``."""
        return int(10**self.decimals)

    def to_value(self, code: int) -> float:
        """Return the value in the channel's unit, correctly rounded once (for screens and charts)."""
        return code * self.multiplier / self.divisor

    def to_milli(self, code: int) -> int:
        """Return the value in thousandths of the unit (``temp_mc`` for a temperature), rounded half to even when the step is finer."""
        scaled = code * self.multiplier * 1000
        whole, rest = divmod(scaled, self.divisor)
        return whole + (2 * rest > self.divisor or (2 * rest == self.divisor and whole % 2 == 1))

    def to_code(self, value: float) -> int:
        """Return the nearest code of ``value`` (half to even): a decimal that the sensor printed comes back exactly.

        Raises ``OverflowError`` or ``ValueError`` for infinities and NaN; callers refuse those before.
        """
        return round(value * self.divisor / self.multiplier)

    def format(self, code: int) -> str:
        """Return the value as decimal text with the digits that the sensor has, for example ``-4.12``."""
        return f"{self.to_value(code):.{self.decimals}f}"
