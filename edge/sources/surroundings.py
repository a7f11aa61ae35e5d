"""Surroundings: what every source is given. Not a registry, and no source changes it.

Invariant: clocks and chance come from here; a source that reads another clock is a bug.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.intake import Intake
from protocol.clock import Clock, Timer
from protocol.profile import Profile
from protocol.reading import Stamp
from protocol.units import DeviceId

__all__ = ["Surroundings"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """``stamp`` marks an arrival, ``clock`` paces recordings, ``timer`` is real time, ``folder`` is for a source's own small files."""

    intake: Intake
    devices: Mapping[DeviceId, Profile]
    stamp: Callable[[], Stamp]
    clock: Clock
    timer: Timer
    rng: random.Random
    folder: Path
