from typing import Any

from ingest import schema
from ingest.intake import Outcome
from ingest.store import Store
from protocol import state
from protocol.state import Live, Presence
from tests.ingest.applying import apply_in, rows_in
from tests.ingest.frames import PROFILE, START_MS, Gateway, rows_of


def last_values(store: Store) -> dict[str, tuple[Any, ...]]:
    return {
        row.channel: (row.ts_ms, row.code, row.value_milli, row.live, row.seen_ms, row.quality) for row in rows_in(store, schema.last_value)
    }


def test_last_values_are_the_newest_valid_sample_of_each_channel(store: Store) -> None:
    rows = rows_of(60, 60)
    apply_in(store, Gateway().block(rows=rows))

    found = last_values(store)

    assert set(found) == {channel.name for channel in PROFILE.channels}
    for index, channel in enumerate(PROFILE.channels):
        newest = max(at for at in range(60) if rows.quality[at, index] == 0)
        code = int(rows.codes[newest, index])
        expected = (int(rows.ts_ms[newest]), code, channel.scale.to_milli(code), False, int(rows.ts_ms[-1]), int(rows.quality[-1, index]))
        assert found[channel.name] == expected


def test_an_older_block_changes_no_last_value(store: Store) -> None:
    gateway = Gateway()
    old, new = gateway.block(), gateway.block()
    apply_in(store, new)
    before = last_values(store)

    apply_in(store, old)

    assert last_values(store) == before
    seen = rows_in(store, schema.device_seen)[0]
    assert (seen.blocks, seen.rows, seen.first_ms) == (2, 120, START_MS + 60_000)


def test_a_live_value_moves_the_page_until_the_block_comes(store: Store) -> None:
    gateway = Gateway()
    name = PROFILE.channels[0].name
    live = gateway.state(state.encode(Live("cooler-0001", PROFILE.id, START_MS + 90_000, {name: -4120})))

    applied = apply_in(store, live)
    shown = last_values(store)[name]
    apply_in(store, gateway.block(rows=rows_of(60, 30)))  # ends one second before the live value
    still = last_values(store)[name]
    apply_in(store, gateway.block(rows=rows_of(95, 5)))
    then = last_values(store)[name]

    assert applied.outcomes == (Outcome.STATE,)
    assert applied.receipts == ()
    assert shown[:4] == still[:4] == (START_MS + 90_000, None, -4120, True)
    assert still[4] == START_MS + 89_000
    assert then[3] is False
    assert then[0] == START_MS + 99_000


def test_samples_of_the_far_future_do_not_freeze_the_page(store: Store) -> None:
    gateway = Gateway()
    apply_in(store, gateway.block(rows=rows_of(1, 5, start_ms=START_MS + 10 * 365 * 86_400_000)))

    apply_in(store, gateway.block(rows=rows_of(1, 5)))

    assert {row[4] for row in last_values(store).values()} == {START_MS + 5000}
    assert len(rows_in(store, schema.block)) == 2


def status_of(store: Store) -> tuple[Any, ...]:
    (row,) = rows_in(store, schema.gateway_status)
    return row.online, row.boot, row.version, row.changed_ms


def test_presence_is_the_newest_word_of_the_newest_boot(store: Store) -> None:
    gateway = Gateway()
    birth = state.encode(Presence(True, 1, "1.0"))
    will = state.encode(Presence(False, 1))
    newer = state.encode(Presence(True, 2, "1.1"))

    apply_in(store, gateway.state(birth, received_ms=10))
    assert status_of(store) == (True, f"{1:016x}", "1.0", 10)
    apply_in(store, gateway.state(newer, received_ms=20), gateway.state(will, received_ms=21))
    assert status_of(store) == (True, f"{2:016x}", "1.1", 10)  # the will of the boot before says nothing of this one
    apply_in(store, gateway.state(state.encode(Presence(False, 2)), received_ms=30))
    assert status_of(store) == (False, f"{2:016x}", "1.1", 30)


def test_a_record_shows_the_gateways_clock(store: Store) -> None:
    apply_in(store, Gateway().block())

    (row,) = rows_in(store, schema.gateway_status)
    assert (row.online, row.wall_ms, row.clock_quality, row.last_ms) == (False, START_MS + 1000, 2, START_MS + 3_600_000)
