from dataclasses import dataclass

from protocol.profile import builtin
from protocol.reading import MachineState
from simulator.clinic import Clinic, plan_day
from simulator.cooler import Demand
from simulator.faults import Fault, FaultKind
from simulator.world import World

PROFILE = builtin("icecap-cooler")
DAY = 20_465
NINE_MS = DAY * 86_400_000 + 9 * 3_600_000


def world(start_ms: int = NINE_MS, **faults: list[Fault]) -> World:
    return World(Clinic("a", 2), PROFILE, start_ms=start_ms, faults={name.replace("_", "-"): found for name, found in faults.items()})


def test_rows_do_not_depend_on_how_often_one_asks():
    patient, eager = world(), world()

    once = list(patient.rows_until(NINE_MS + 60_000))
    often = [row for step in range(0, 60_001, 700) for row in eager.rows_until(NINE_MS + step)]

    assert often == once[: len(often)]
    assert len(once) - len(often) <= 2


def test_every_machine_that_is_on_reports_once_a_second_in_its_own_time():
    rows = list(world().rows_until(NINE_MS + 60_000))

    for serial in ("cooler-0001", "cooler-0002"):
        own = [row.sample for row in rows if row.serial == serial]
        assert [sample.ts_ms for sample in own] == [NINE_MS + 1_000 * number for number in range(1, 61)]
        assert [sample.counter for sample in own] == list(range(1, 61))


def test_a_day_can_be_entered_in_the_middle():
    """At nine the machines have been on for an hour: their tanks are cold and sessions run."""
    rows = list(world().rows_until(NINE_MS + 1_000))

    states = {row.sample.codes[PROFILE.index(name)] for row in rows for name in ("state_1", "state_2")}
    coolant = [row.sample.codes[PROFILE.index("coolant_temp_1")] for row in rows]
    assert states & {MachineState.PRE_COOL, MachineState.INFUSION}
    assert all(code is not None and code < -250 for code in coolant)


@dataclass(frozen=True, slots=True)
class Switched(Clinic):
    """A clinic whose machines are off from the tenth to the twentieth second."""

    def demand(self, serial: str, now_ms: int) -> Demand:  # noqa: ARG002 - the base class's signature
        return Demand(powered=not 10_000 <= now_ms - NINE_MS < 20_000)


def test_a_machine_that_is_switched_off_says_nothing_and_boots_anew():
    switched = World(Switched("a", 1), PROFILE, start_ms=NINE_MS)

    rows = list(switched.rows_until(NINE_MS + 30_000))

    seconds = [(row.sample.ts_ms - NINE_MS) // 1_000 for row in rows]
    assert seconds == [*range(1, 10), *range(20, 31)]
    assert [row.sample.counter for row in rows] == [*range(1, 10), *range(1, 12)]
    assert [len({row.boot for row in part}) for part in (rows[:9], rows[9:], rows)] == [1, 1, 2]


def test_a_machine_is_off_at_night():
    shift = plan_day("a", "cooler-0001", DAY)

    rows = list(world(shift.off_ms - 5_000).rows_until(shift.off_ms + 5_000))

    assert [row.sample.ts_ms for row in rows if row.serial == "cooler-0001"] == [shift.off_ms - 1_000 * back for back in (4, 3, 2, 1)]


def test_a_fault_strikes_the_machine_it_was_given_to():
    broken = world(cooler_0001=[Fault(FaultKind.MAINS_SAG, 0, 2**62)])

    volts = {row.serial: row.sample.codes[PROFILE.index("mains_voltage")] for row in broken.rows_until(NINE_MS + 1_000)}

    assert (volts["cooler-0001"] or 0) < 1_800 < (volts["cooler-0002"] or 0)
