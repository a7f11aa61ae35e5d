"""Cooler: a believable scalp cooler in numbers. Physics and sensors, not staff (``clinic``), not the network (``publish``).

    mains ─ compressor ─ condenser ─► ambient
               │ cold
    tank 1 ◄───┴───► tank 2          thermostat with hysteresis on each, one compressor for both
      │ pump, hose                   pump curve against hose resistance: flow, pressure and current belong together
      cap (zones a, b) ◄── scalp     perfusion warms the scalp, the cap takes the heat

Lumped heat balances, one explicit Euler step a second. Invariant: pure and integer in time: the same seed, demands and effects give the
same history, sample for sample.
"""

import math
import random
from dataclasses import dataclass, field

from protocol.profile import Channel, Profile
from protocol.reading import MachineState
from simulator.faults import HEALTHY, Effects

__all__ = ["IDLE", "Cooler", "Demand", "Sample"]

STEP_MS_MAX = 1_000  # the fastest time constant is the pump's two seconds; a longer Euler step would swing
DAY_S = 86_400

SET_POINT_C = -4.0  # domain: coolant of the common machine
HYSTERESIS_K = 0.5
READY_BAND_K = 1.0  # "ready" within this of the set point
UNREADY_BAND_K = 3.0  # and no longer ready beyond this
COMPRESSOR_REST_S = 120  # pressures must equalise before it may start again
COMPRESSOR_VOLTS_MIN = 180.0
COLD_W = 1_000.0  # at 0 degC coolant and 35 degC condenser: two tanks from room temperature in about 20 minutes
TANK_J_K = 24_000.0  # 6.5 kg of water and glycol
TANK_LOSS_W_K = 2.0
CONDENSER_J_K = 12_000.0
CONDENSER_W_K = 230.0  # fan and fins: nine kelvin above ambient at full load
WORK_SHARE = 1.3  # heat out for each joule of cold

PUMP_HEAD_KPA = 200.0
PUMP_DROOP = 18.0  # kPa for (l/min)²
HOSE_RESISTANCE = 23.0  # kPa for (l/min)²: 2.2 l/min with a free hose
PUMP_IDLE_A = 0.9
PUMP_A_PER_FLOW = 0.55
PUMP_STUCK_A = 4.3  # above the profile's limit
PUMP_TRIP_MS = 60_000  # then the winding's protection opens
PUMP_LAG_S = 2.0
NO_FLOW_FAULT_S = 15  # the machine gives up when its pump moves nothing
FLOW_MIN = 0.3
AIR_LEVEL_PCT = 15.0  # below it the pump draws air

CAP_J_K = 900.0  # one zone
CAP_FLOW_W_K = 5.8  # coolant to cap zone at nominal flow
NOMINAL_FLOW = 2.2
CAP_AMBIENT_W_K = 0.5
SCALP_CAP_W_K = 1.8
SCALP_J_K = 1_300.0
BLOOD_C = 37.0

SPIKE_ONE_IN = 8_000  # sample values; contactors and phones
SENTINEL_ONE_IN = 60_000
DROPOUT_ONE_IN = 40_000
BURST_MAX = 6  # a loose plug rarely costs one sample only


@dataclass(frozen=True, slots=True)
class Demand:
    """What staff want of a machine now: switched on or not, and the phase of each circuit (``READY``: no patient)."""

    powered: bool = True
    phases: tuple[MachineState, MachineState] = (MachineState.READY, MachineState.READY)


IDLE = Demand()
_PUMPING = frozenset({MachineState.PRE_COOL, MachineState.INFUSION, MachineState.POST_COOL})
_HEAD_IN_CAP = _PUMPING | {MachineState.WARM_UP, MachineState.PAUSED}


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as the machine reports it: its own time, its sample number in this boot, raw codes in the profile's order."""

    ts_ms: int
    counter: int
    codes: tuple[int | None, ...]


@dataclass(slots=True)
class _Circuit:
    """Tank, pump, hose, cap and head of one patient's place."""

    coolant: float
    caps: list[float]
    scalp: float = 33.0
    flow: float = 0.0
    pressure: float = 0.0
    current: float = 0.0
    is_cooling: bool = False
    is_ready: bool = False
    dry_s: float = 0.0
    is_faulty: bool = False
    filled_pct: float = 0.0
    state: MachineState = MachineState.COOLING_DOWN


@dataclass(slots=True)
class _Burst:
    """A channel that says nothing, or nonsense, for some samples."""

    left: int = 0
    code: int | None = None


@dataclass(slots=True)
class _Machine:
    """Everything that the two circuits share."""

    ambient: float
    condenser: float
    mains: float = 230.0
    level: float = 80.0
    is_running: bool = False
    rest_s: float = COMPRESSOR_REST_S
    lifetime_s: float = 0.0
    room_drift: float = 0.0
    mains_drift: float = 0.0
    bursts: dict[str, _Burst] = field(default_factory=dict)


class Cooler:
    """One machine of two circuits with the built-in profile. ``step`` moves it on and returns what it reports."""

    def __init__(self, profile: Profile, *, seed: str, start_ms: int) -> None:
        """Begin switched off and warm at ``start_ms`` (wall time of the machine's own clock)."""
        chance = random.Random(seed)
        self._chance = chance
        self._profile = profile
        self._base_c = 21.5 + chance.uniform(-1.0, 1.0)
        self._now_ms = start_ms
        self._counter = 0
        self._frozen: tuple[int, tuple[int | None, ...]] | None = None
        room = self._base_c
        self._machine = _Machine(
            ambient=room, condenser=room, level=80.0 + chance.uniform(-6, 6), lifetime_s=float(chance.randrange(500, 9_000) * 3600)
        )
        self._circuits = (_Circuit(room, [room, room]), _Circuit(room, [room, room]))

    @property
    def states(self) -> tuple[MachineState, MachineState]:
        """What each circuit is doing."""
        return (self._circuits[0].state, self._circuits[1].state)

    def restart(self) -> None:
        """A new boot of the machine's controller: the sample number begins again. The caller gives the new boot its id."""
        self._counter = 0

    def step(self, dt_ms: int, demand: Demand = IDLE, effects: Effects = HEALTHY) -> Sample:
        """Let ``dt_ms`` pass under what staff want and what is broken, and take one sample. Raises ``ValueError`` for no time."""
        self.advance(dt_ms, demand, effects)
        self._counter += 1
        if effects.is_frozen:
            self._frozen = self._frozen or (self._now_ms, self._sense(effects))
            return Sample(self._frozen[0], self._counter, self._frozen[1])
        self._frozen = None
        return Sample(self._now_ms, self._counter, self._sense(effects))

    def advance(self, dt_ms: int, demand: Demand = IDLE, effects: Effects = HEALTHY) -> None:
        """Let time pass without a sample: while the machine is off, and to begin in the middle of a day."""
        if dt_ms <= 0:
            raise ValueError("time must pass")
        left = dt_ms
        while left > 0:
            part = min(left, STEP_MS_MAX)
            self._now_ms += part
            self._move(part / 1000, demand, effects)
            left -= part

    def _move(self, dt: float, demand: Demand, effects: Effects) -> None:
        is_alive = demand.powered and not effects.is_frozen
        self._surroundings(dt, effects)
        for index, circuit in enumerate(self._circuits):
            self._decide(circuit, demand.phases[index] if is_alive else MachineState.READY, dt, effects.sensor_offset_k[index])
            if not is_alive:
                circuit.is_cooling = False
            self._pump(circuit, dt, index, effects)
            head = is_alive and demand.phases[index] in _HEAD_IN_CAP
            self._heat(circuit, dt, has_head=head)
            self._drain(circuit, dt, effects.cap_leak_pct_per_h[index])
        self._compress(dt, effects)
        self._machine.level = max(0.0, self._machine.level - effects.leak_pct_per_h * dt / 3600)
        if demand.powered:
            self._machine.lifetime_s += dt

    def _surroundings(self, dt: float, effects: Effects) -> None:
        """Room and mains: a daily curve and slow wandering (Ornstein-Uhlenbeck, an hour and five minutes)."""
        machine, chance = self._machine, self._chance
        machine.room_drift += -machine.room_drift * dt / 3600 + 0.01 * chance.gauss(0.0, 1.0) * math.sqrt(dt)
        machine.mains_drift += -machine.mains_drift * dt / 300 + 0.12 * chance.gauss(0.0, 1.0) * math.sqrt(dt)
        second = self._now_ms / 1000 % DAY_S
        machine.ambient = self._base_c + 1.8 * math.sin(2 * math.pi * (second / DAY_S - 0.375)) + machine.room_drift
        load = 2.0 if machine.is_running else 0.0
        machine.mains = (230.0 + machine.mains_drift - load) * effects.mains

    def _decide(self, circuit: _Circuit, phase: MachineState, dt: float, offset: float) -> None:
        """The machine's own controller: thermostat, readiness, and giving up on a pump that moves nothing."""
        seen = circuit.coolant + offset
        if seen > SET_POINT_C + HYSTERESIS_K:
            circuit.is_cooling = True
        elif seen < SET_POINT_C - HYSTERESIS_K:
            circuit.is_cooling = False
        if seen < SET_POINT_C + READY_BAND_K:
            circuit.is_ready = True
        elif seen > SET_POINT_C + UNREADY_BAND_K:
            circuit.is_ready = False
        wants_flow = phase in _PUMPING
        circuit.dry_s = circuit.dry_s + dt if wants_flow and circuit.flow < FLOW_MIN else 0.0
        circuit.is_faulty = phase != MachineState.READY and (circuit.is_faulty or circuit.dry_s > NO_FLOW_FAULT_S)
        if circuit.is_faulty:
            circuit.state = MachineState.FAULT
        elif phase == MachineState.READY:
            circuit.state = MachineState.READY if circuit.is_ready else MachineState.COOLING_DOWN
        else:
            circuit.state = phase

    def _pump(self, circuit: _Circuit, dt: float, index: int, effects: Effects) -> None:
        """Where the pump's curve meets the hose's: ``head - droop·q² = resistance·q²``; a cold coolant is thicker."""
        stuck_ms = effects.pump_stuck_ms[index]
        runs = circuit.state in _PUMPING
        flow = pressure = current = 0.0
        if runs and stuck_ms is not None:
            current = PUMP_STUCK_A if stuck_ms < PUMP_TRIP_MS else 0.0
        elif runs:
            resistance = HOSE_RESISTANCE * effects.hose_resistance[index] * (1.0 - 0.012 * circuit.coolant)
            air = min(1.0, self._machine.level / AIR_LEVEL_PCT)
            flow = math.sqrt(PUMP_HEAD_KPA * air / (PUMP_DROOP + resistance))
            pressure = resistance * flow * flow
            current = PUMP_IDLE_A + PUMP_A_PER_FLOW * flow
        gain = min(1.0, dt / PUMP_LAG_S)
        circuit.flow += (flow - circuit.flow) * gain
        circuit.pressure += (pressure - circuit.pressure) * gain
        circuit.current += (current - circuit.current) * gain

    def _heat(self, circuit: _Circuit, dt: float, *, has_head: bool) -> None:
        """One step of the heat balances of scalp, cap zones and tank."""
        ambient = self._machine.ambient
        exchange = CAP_FLOW_W_K * (circuit.flow / NOMINAL_FLOW) ** 0.6 if circuit.flow > 0.01 else 0.0
        into_tank = TANK_LOSS_W_K * (ambient - circuit.coolant)
        into_scalp = 0.0
        for zone, share in ((0, 1.06), (1, 0.94)):  # the front of a cap is fed first
            cap = circuit.caps[zone]
            from_coolant = exchange * share * (circuit.coolant - cap)
            from_scalp = SCALP_CAP_W_K * (circuit.scalp - cap) if has_head else 0.0
            from_room = CAP_AMBIENT_W_K * (ambient - cap)
            circuit.caps[zone] = cap + (from_coolant + from_scalp + from_room) * dt / CAP_J_K
            into_tank -= from_coolant
            into_scalp -= from_scalp
        if has_head:
            narrow = min(1.0, max(0.0, (circuit.scalp - 19.0) / 14.0))  # cold closes the vessels
            perfusion = 3.2 + 5.0 * narrow
            circuit.scalp += (into_scalp + perfusion * (BLOOD_C - circuit.scalp)) * dt / (2 * SCALP_J_K)
        else:
            circuit.scalp = 33.0  # the next patient's
        circuit.coolant += into_tank * dt / TANK_J_K

    def _drain(self, circuit: _Circuit, dt: float, cap_leak_pct_per_h: float) -> None:
        """A running pump fills the cap from the tank; a leaking cap loses what it is given."""
        target = 2.5 if circuit.flow > FLOW_MIN else 0.0
        circuit.filled_pct += (target - circuit.filled_pct) * min(1.0, dt / 30)
        if circuit.flow > FLOW_MIN:
            self._machine.level = max(0.0, self._machine.level - cap_leak_pct_per_h * dt / 3600)

    def _compress(self, dt: float, effects: Effects) -> None:
        """Share the cold between the tanks whose valves are open; the condenser takes it and the work."""
        machine = self._machine
        open_valves = [circuit for circuit in self._circuits if circuit.is_cooling]
        may_run = bool(open_valves) and machine.mains >= COMPRESSOR_VOLTS_MIN
        machine.rest_s = 0.0 if machine.is_running else machine.rest_s + dt
        machine.is_running = may_run and (machine.is_running or machine.rest_s >= COMPRESSOR_REST_S)
        rejected = 0.0
        if machine.is_running:
            coolant = sum(circuit.coolant for circuit in open_valves) / len(open_valves)
            inlet = min(1.25, max(0.3, 1.0 + 0.018 * coolant))
            outlet = min(1.1, max(0.2, 1.0 - 0.01 * (machine.condenser - 35.0)))
            cold = COLD_W * effects.compressor * inlet * outlet
            for circuit in open_valves:
                circuit.coolant -= cold / len(open_valves) * dt / TANK_J_K
            rejected = cold * WORK_SHARE
        leaving = CONDENSER_W_K * effects.condenser * (machine.condenser - machine.ambient)
        machine.condenser += (rejected - leaving) * dt / CONDENSER_J_K

    def _truth(self, effects: Effects) -> dict[str, float]:
        """Every channel's value before its sensor: by the profile's names."""
        machine = self._machine
        values = {
            "tank_level": machine.level - sum(circuit.filled_pct + 0.03 * (20.0 - circuit.coolant) for circuit in self._circuits),
            "ambient_temp": machine.ambient,
            "condenser_temp": machine.condenser,
            "mains_voltage": machine.mains,
            "lifetime_s": machine.lifetime_s,
        }
        for number, circuit in enumerate(self._circuits, 1):
            values |= {
                f"coolant_temp_{number}": circuit.coolant + effects.sensor_offset_k[number - 1],
                f"cap_temp_{number}a": circuit.caps[0],
                f"cap_temp_{number}b": circuit.caps[1],
                f"flow_{number}": circuit.flow,
                f"pressure_{number}": circuit.pressure,
                f"pump_current_{number}": circuit.current,
                f"set_point_{number}": SET_POINT_C,
                f"state_{number}": float(circuit.state),
            }
        return values

    def _sense(self, effects: Effects) -> tuple[int | None, ...]:
        values = self._truth(effects)
        return tuple(self._read(channel, values[channel.name]) for channel in self._profile.channels)

    def _read(self, channel: Channel, value: float) -> int | None:
        """One sensor: noise, the odd spike, sentinel or gap, and its step."""
        if channel.discrete:
            return channel.code(int(value) if channel.decimals == 0 else value)
        chance = self._chance
        burst = self._machine.bursts.setdefault(channel.name, _Burst())
        noisy = value + chance.gauss(0.0, 0.8 * channel.sigma)
        draw = chance.random()
        if burst.left > 0:
            burst.left -= 1
            return burst.code
        if draw < 1 / DROPOUT_ONE_IN:
            burst.left, burst.code = chance.randrange(BURST_MAX), None
            return None
        if channel.sentinels and draw > 1 - 1 / SENTINEL_ONE_IN:
            burst.left, burst.code = chance.randrange(BURST_MAX), channel.code(chance.choice(channel.sentinels))
            return burst.code
        if 0.5 < draw < 0.5 + 1 / SPIKE_ONE_IN:
            noisy += chance.choice((-1, 1)) * chance.uniform(20, 120) * channel.sigma
        return channel.code(min(channel.hi, max(channel.lo, noisy)))
