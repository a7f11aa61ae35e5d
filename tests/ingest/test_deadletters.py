from sqlalchemy import update

from ingest import deadletters, schema
from ingest.apply import apply_batch, read_nothing
from ingest.arrivals import Incoming
from ingest.intake import Outcome
from ingest.store import Store
from protocol.refusal import Reason
from provisioning import registry
from tests.ingest.applying import NOW_MS, PROFILES, apply_in, rows_in
from tests.ingest.conftest import SITE
from tests.ingest.frames import Gateway, flipped


def retried(store: Store, **chosen) -> list[Outcome]:
    with store.transaction() as connection:
        found = deadletters.retryable(connection, **chosen)
        outcomes = []
        for one in found:
            outcome = apply_batch(connection, [one.message], profiles=PROFILES, now_ms=NOW_MS).outcomes[0]
            if outcome not in {Outcome.REFUSED, Outcome.PARKED}:
                deadletters.resolve(connection, one, now_ms=NOW_MS)
            outcomes.append(outcome)
        return outcomes


def test_a_gateway_that_was_registered_late_loses_nothing(store: Store) -> None:
    late = Gateway("gw-late")
    apply_in(store, late.block(), late.block())
    with store.transaction() as connection:
        registry.add_gateway(connection, "gw-late", site_id=SITE, at_ms=5)

    assert retried(store) == [Outcome.STORED, Outcome.STORED]

    with store.reading() as connection:
        assert deadletters.counts(connection) == {}
    assert len(rows_in(store, schema.block)) == 2
    assert {row.resolved_ms for row in rows_in(store, schema.dead_letter)} == {NOW_MS}
    assert retried(store) == []


def test_a_parked_frame_goes_where_it_belongs_once_it_can_be_read(store: Store) -> None:
    message = Gateway().block()
    with store.transaction() as connection:
        apply_batch(connection, [message], profiles=PROFILES, now_ms=1, reader=read_nothing)

    assert retried(store) == [Outcome.STORED]

    assert rows_in(store, schema.parked) == []
    assert rows_in(store, schema.block)[0].data == message.payload
    with store.reading() as connection:
        assert deadletters.counts(connection) == {}


def test_what_is_still_refused_stays(store: Store) -> None:
    apply_in(store, flipped(Gateway().block(), 777))

    assert retried(store) == [Outcome.REFUSED]

    (row,) = rows_in(store, schema.dead_letter)
    assert (row.times, row.resolved_ms) == (2, None)


def test_a_retry_can_be_narrowed(store: Store) -> None:
    apply_in(store, flipped(Gateway().block(), 777), Gateway("gw-late").block())

    with store.reading() as connection:
        by_reason = deadletters.retryable(connection, reason=Reason.UNKNOWN_GATEWAY)
        (letter,) = deadletters.newest(connection, limit=9, reason=Reason.BAD_CHECKSUM)
        by_id = deadletters.retryable(connection, ids=[letter.id])

    assert [one.message.topic.split("/")[3] for one in by_reason] == ["gw-late"]
    assert [one.id for one in by_id] == [letter.id]


def test_the_bytes_of_a_parked_frame_are_found_through_its_dead_letter(store: Store) -> None:
    message = Gateway().block()
    with store.transaction() as connection:
        apply_batch(connection, [message], profiles=PROFILES, now_ms=1, reader=read_nothing)

    with store.reading() as connection:
        (letter,) = deadletters.newest(connection, limit=9)
        found = deadletters.find(connection, letter.id)
        missing = deadletters.find(connection, letter.id + 1)

    assert found is not None
    assert found[1] == message.payload
    assert missing is None


def test_beyond_the_bound_dead_letters_are_only_counted(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(deadletters, "DEAD_LETTERS_MAX", 5)
    message = Gateway().block()

    applied = apply_in(store, *(flipped(message, 100 + bit) for bit in range(8)))
    apply_in(store, flipped(message, 300))

    with store.reading() as connection:
        assert deadletters.counts(connection) == {"bad_checksum": 5}
        assert deadletters.shed(connection) == 4
    assert applied.refusals == {Reason.BAD_CHECKSUM: 8}


def test_parked_frames_are_kept_also_beyond_that_bound(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(deadletters, "DEAD_LETTERS_MAX", 0)
    message = Gateway().block()

    with store.transaction() as connection:
        apply_batch(connection, [message], profiles=PROFILES, now_ms=1, reader=read_nothing)

    assert rows_in(store, schema.dead_letter) == []
    assert rows_in(store, schema.parked)[0].data == message.payload  # the gateway forgets it: these bytes are the only ones


def test_closing_leaves_what_is_parked(store: Store) -> None:
    message = Gateway().block()
    with store.transaction() as connection:
        apply_batch(connection, [message], profiles=PROFILES, now_ms=1, reader=read_nothing)
        (letter,) = deadletters.newest(connection, limit=9)

        assert deadletters.forget(connection, [letter.id], now_ms=5) == 1
        assert deadletters.forget(connection, [letter.id], now_ms=6) == 0

    assert len(rows_in(store, schema.parked)) == 1


def test_a_topic_no_page_could_show_is_made_printable(store: Store) -> None:
    apply_in(store, Incoming("icecap/\x1b[31m\n" + "x" * 500, b"1", 5))

    (row,) = rows_in(store, schema.dead_letter)
    assert row.topic.isprintable()
    assert len(row.topic) == 256


def test_dead_letters_can_be_changed_unlike_evidence(store: Store) -> None:
    apply_in(store, flipped(Gateway().block(), 777))
    with store.transaction() as connection:
        assert connection.execute(update(schema.dead_letter).values(times=9)).rowcount == 1
