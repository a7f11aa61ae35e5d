"""Faults: what can go wrong with a cooler, as physical causes. Not alarms: whether anybody notices is what the alarms are tested for.

A fault has a time and a strength; ``effects`` folds those that act at a moment into the numbers that the physics reads. Pure and seeded.
Invariant: without a fault ``effects`` is ``HEALTHY``, and a healthy cooler never looks at this module.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

__all__ = ["HEALTHY", "HOUR_MS", "Effects", "Fault", "FaultKind", "effects", "parse", "surprise"]

Value = TypeVar("Value")

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class FaultKind(StrEnum):
    """The causes. ``strength`` runs from 0 (nothing) to 1 (as bad as it gets)."""

    KINKED_HOSE = "kinked_hose"
    """The hose to a cap is bent: the flow falls, the pressure before the kink rises."""
    LOW_COOLANT = "low_coolant"
    """The tank loses coolant slowly: level falls, later the pump draws air."""
    LEAKING_CAP = "leaking_cap"
    """A cap drips while its pump runs: level falls in sessions only."""
    FAILING_COMPRESSOR = "failing_compressor"
    """Worn valves or lost refrigerant: less cold for the same running time."""
    DIRTY_CONDENSER = "dirty_condenser"
    """Dust on the fins: the condenser runs hot and the cold output falls."""
    DRIFTING_SENSOR = "drifting_sensor"
    """The coolant sensor of a circuit walks away from the truth by up to 4 K an hour; the machine regulates on it."""
    FROZEN_SCREEN = "frozen_screen"
    """The controller hangs: cooling stops, the values go on being reported unchanged, time included."""
    MAINS_SAG = "mains_sag"
    """The mains fall by up to 30 %; below 180 V the compressor drops out."""
    DEAD_PUMP = "dead_pump"
    """The rotor is stuck: current up, no flow, then the winding's protection opens."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One cause on one machine from ``start_ms`` until before ``end_ms`` (wall time). ``circuit`` is 1 or 2 where it matters."""

    kind: FaultKind
    start_ms: int
    end_ms: int
    circuit: int = 1
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Effects:
    """What the physics is to do differently now; tuples hold one value a circuit."""

    hose_resistance: tuple[float, float] = (1.0, 1.0)
    leak_pct_per_h: float = 0.0
    cap_leak_pct_per_h: tuple[float, float] = (0.0, 0.0)
    compressor: float = 1.0
    condenser: float = 1.0
    sensor_offset_k: tuple[float, float] = (0.0, 0.0)
    is_frozen: bool = False
    mains: float = 1.0
    pump_stuck_ms: tuple[int | None, int | None] = (None, None)
    """How long the rotor has been stuck; ``None``: it turns."""


HEALTHY = Effects()


def effects(faults: Iterable[Fault], now_ms: int) -> Effects:
    """Return what the faults do at ``now_ms``; two of a kind on one circuit: the later in the list counts."""
    found = HEALTHY
    for fault in faults:
        if fault.start_ms <= now_ms < fault.end_ms:
            found = _apply(found, fault, now_ms)
    return found


def _apply(found: Effects, fault: Fault, now_ms: int) -> Effects:
    strength, circuit, age_ms = fault.strength, fault.circuit, now_ms - fault.start_ms
    match fault.kind:
        case FaultKind.KINKED_HOSE:
            changed = replace(found, hose_resistance=_put(found.hose_resistance, circuit, 1.0 + 11.0 * strength))
        case FaultKind.LOW_COOLANT:
            changed = replace(found, leak_pct_per_h=30.0 * strength)
        case FaultKind.LEAKING_CAP:
            changed = replace(found, cap_leak_pct_per_h=_put(found.cap_leak_pct_per_h, circuit, 20.0 * strength))
        case FaultKind.FAILING_COMPRESSOR:
            changed = replace(found, compressor=1.0 - 0.85 * strength)
        case FaultKind.DIRTY_CONDENSER:
            changed = replace(found, condenser=1.0 - 0.8 * strength)
        case FaultKind.DRIFTING_SENSOR:
            changed = replace(found, sensor_offset_k=_put(found.sensor_offset_k, circuit, 4.0 * strength * age_ms / HOUR_MS))
        case FaultKind.FROZEN_SCREEN:
            changed = replace(found, is_frozen=True)
        case FaultKind.MAINS_SAG:
            changed = replace(found, mains=1.0 - 0.3 * strength)
        case FaultKind.DEAD_PUMP:
            changed = replace(found, pump_stuck_ms=_put(found.pump_stuck_ms, circuit, age_ms))
    return changed


def _put(pair: tuple[Value, Value], circuit: int, value: Value) -> tuple[Value, Value]:
    return (value, pair[1]) if circuit == 1 else (pair[0], value)


def surprise(seed: str, *, start_ms: int, end_ms: int) -> Fault:
    """Return a fault of any kind that begins somewhere in the first half of the span; the same seed gives the same one."""
    chance = random.Random(seed)
    kind = chance.choice(list(FaultKind))
    begin = start_ms + chance.randrange(max(1, (end_ms - start_ms) // 2))
    return Fault(kind, begin, end_ms, chance.choice((1, 2)), round(chance.uniform(0.6, 1.0), 2))


def parse(text: str, *, origin_ms: int) -> Fault:
    """Return the fault in ``KIND@FROM[-TO][:CIRCUIT][*STRENGTH]``, minutes from ``origin_ms``; without TO it stays.

    For example ``kinked_hose@10-25:2*0.8``. Raises ``ValueError`` that names the parts.
    """
    try:
        head, _, strength = text.partition("*")
        head, _, circuit = head.partition(":")
        name, _, span = head.partition("@")
        first, _, last = span.partition("-")
        start_ms = origin_ms + round(float(first) * MINUTE_MS)
        end_ms = origin_ms + round(float(last) * MINUTE_MS) if last else 2**62
        fault = Fault(FaultKind(name), start_ms, end_ms, int(circuit or 1), float(strength or 1))
    except ValueError as error:
        kinds = ", ".join(FaultKind)
        raise ValueError(f"fault {text!r}: want KIND@FROM[-TO][:CIRCUIT][*STRENGTH] with KIND one of {kinds} ({error})") from None
    if fault.circuit not in {1, 2} or not 0 < fault.strength <= 1 or fault.end_ms <= fault.start_ms:
        raise ValueError(f"fault {text!r}: a circuit is 1 or 2, a strength above 0 up to 1, and TO is after FROM")
    return fault
