"""World: a clinic's machines moving through its day together. It ties timetable, faults and physics; no network and no clock.

Invariant: which rows come out up to a moment does not depend on how often one asks.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from protocol.profile import Profile
from simulator.clinic import Clinic
from simulator.cooler import Cooler, Sample
from simulator.faults import Fault, effects

__all__ = ["Row", "World"]

SAMPLE_MS = 1_000  # a cooler reports once a second
WARM_MS = 3 * 3_600_000  # played in silence before the start, so that a day can be entered in the middle
WARM_STEP_MS = 30_000  # how often staff are looked at while it is


@dataclass(frozen=True, slots=True)
class Row:
    """One sample of one machine in one of its boots."""

    serial: str
    boot: int
    sample: Sample


@dataclass(slots=True)
class _Place:
    cooler: Cooler
    faults: tuple[Fault, ...]
    boot: int = 0
    is_on: bool = False


class World:
    """A clinic from ``start_ms`` (wall time) on."""

    def __init__(self, clinic: Clinic, profile: Profile, *, start_ms: int, faults: Mapping[str, Sequence[Fault]] | None = None) -> None:
        """Put the machines into the state that three hours of their timetable have brought them to. ``faults`` go by serial number."""
        self._clinic = clinic
        self._now_ms = start_ms
        chosen = faults or {}
        self._places = {
            serial: _Place(Cooler(profile, seed=f"{clinic.seed}/{serial}", start_ms=start_ms - WARM_MS), tuple(chosen.get(serial, ())))
            for serial in clinic.serials
        }
        for then_ms in range(start_ms - WARM_MS, start_ms, WARM_STEP_MS):
            for serial, place in self._places.items():
                demand = clinic.demand(serial, then_ms)
                place.cooler.advance(WARM_STEP_MS, demand, effects(place.faults, then_ms))
                self._switch(serial, place, powered=demand.powered, now_ms=then_ms)

    @property
    def now_ms(self) -> int:
        """The moment up to which rows have been taken."""
        return self._now_ms

    def rows_until(self, now_ms: int) -> Iterator[Row]:
        """Move on in steps of a sample and yield what the machines report, until the next sample would lie after ``now_ms``."""
        while self._now_ms + SAMPLE_MS <= now_ms:
            self._now_ms += SAMPLE_MS
            for serial, place in self._places.items():
                demand = self._clinic.demand(serial, self._now_ms)
                self._switch(serial, place, powered=demand.powered, now_ms=self._now_ms)
                acting = effects(place.faults, self._now_ms)
                if place.is_on:
                    yield Row(serial, place.boot, place.cooler.step(SAMPLE_MS, demand, acting))
                else:
                    place.cooler.advance(SAMPLE_MS, demand, acting)

    def _switch(self, serial: str, place: _Place, *, powered: bool, now_ms: int) -> None:
        """A machine that is switched on has a new boot id and counts from one again."""
        if powered and not place.is_on:
            place.boot = random.Random(f"{self._clinic.seed}/{serial}/{now_ms}").getrandbits(32)
            place.cooler.restart()
        place.is_on = powered
