"""A clinic for the billing tests: facts as gateways send them, applied by the real ``apply_batch``, and the books read back."""

import datetime as dt
from dataclasses import dataclass, field

from sqlalchemy import select

from ingest.apply import apply_batch
from ingest.arrivals import Incoming
from ingest.billing import courses, grants, ledger, pricebook
from ingest.billing.courses import Mode
from ingest.billing.grants import Issue
from ingest.billing.tables import billing_session
from ingest.profiles import Profiles
from ingest.schema import event
from ingest.store import Store
from protocol.facts import SessionClosed, SessionEvent, SessionOpened
from protocol.session import MINUTE_MS, Event, Rules, What, replay
from provisioning import registry
from tests.ingest.frames import START_MS, Gateway

NOW_MS = START_MS + 7_200_000
SITE = "clinic-a"
COURSE = "course-7f3a"
BOOK = pricebook.builtin("us-self-pay-2023")

WHOLE = ((0, What.COOLING_ON), (30, What.INFUSION_START), (90, What.INFUSION_END), (180, What.END))
ABORTED = ((0, What.COOLING_ON), (3, What.END))
NO_INFUSION = ((0, What.COOLING_ON), (25, What.NO_CHEMOTHERAPY), (26, What.END))


def session_id(number: int) -> bytes:
    return bytes(15) + bytes([number])


def token_hash(number: int) -> bytes:
    return b"T" * 15 + bytes([number])


@dataclass(slots=True)
class Clinic:
    """One store, its gateways, and short ways to say what happens."""

    store: Store
    gateways: dict[str, Gateway] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.store.transaction() as connection:
            registry.add_site(connection, registry.Site(SITE, "Clinic A", "America/New_York", 0))
            for number, name in enumerate(("gw-a", "gw-b")):
                registry.add_gateway(connection, name, site_id=SITE, at_ms=0)
                gateway = Gateway(name)
                gateway.streams = {lane: stream - number for lane, stream in gateway.streams.items()}
                self.gateways[name] = gateway

    def open_course(self, course: str = COURSE, *, mode: Mode = Mode.SELF_PAY) -> None:
        with self.store.transaction() as connection:
            courses.open_course(
                connection, course, site=SITE, enrolled_on=dt.date(2025, 6, 1), book=BOOK, mode=mode, payer="patient", at_ms=0
            )

    def issue(self, *uses: int, course: str = COURSE, first: int = 1) -> None:
        issues = [Issue(token_hash(first + at), "PAID", count) for at, count in enumerate(uses)]
        with self.store.transaction() as connection:
            grants.issue(connection, issues, course=course, site=SITE, requested_by="hub", at_ms=NOW_MS)

    def session(
        self, number: int, script=WHOLE, *, gateway: str = "gw-a", token: int | None = 1, use: int = 0, course: str = COURSE, **opened
    ) -> list[Incoming]:
        """The messages of one session; ``number`` is its id and its day."""
        told = tuple(Event(what, minute * MINUTE_MS) for minute, what in script)
        first = SessionOpened(
            session_id(number),
            "cooler-0001",
            1,
            "token" if token else "override",
            token_hash(token) if token else b"",
            use if token else -1,
            "PAID" if token else "",
            course,
            **opened,
        )
        facts = [first, *(SessionEvent(session_id(number), one.what.value, one.at_ms) for one in told)]
        end = replay(session_id(number), told, Rules())
        if end.phase.closed:
            reason = end.end_reason.value if end.end_reason else ""
            facts.append(
                SessionClosed(
                    session_id(number),
                    end.phase.value,
                    end.commit.value,
                    reason,
                    end.now_ms,
                    end.in_range_ms,
                    end.post_in_range_ms,
                    end.paused_ms,
                )
            )
        return [self._stamped(gateway, one, number) for one in facts]

    def _stamped(self, gateway: str, fact, number: int) -> Incoming:
        """The fact in a frame whose wall clock says day ``number``."""
        from protocol import facts as fact_codec
        from protocol import frame
        from protocol.clock import ClockQuality
        from protocol.facts import CHAIN_START, FactRecord
        from protocol.frame import FrameHead, Identity, Kind
        from protocol.reading import Stamp
        from protocol.topics import Lane
        from protocol.units import GatewayId

        sender = self.gateways[gateway]
        seq = sender.seqs.get(Lane.METERING, 0) + 1
        sender.seqs[Lane.METERING] = seq
        body = fact_codec.encode(FactRecord(fact, sender.chains.get(Lane.METERING, CHAIN_START)))
        sender.chains[Lane.METERING] = fact_codec.fact_hash(body)
        stamp = Stamp(1, seq, START_MS + 86_400_000 * number + 36_000_000, ClockQuality.SYNCED)
        data = frame.encode(FrameHead(Identity(GatewayId(gateway), sender.streams[Lane.METERING], seq), Kind.FACT, stamp), body)
        return sender.incoming(Lane.METERING, data)

    def apply(self, *messages: Incoming) -> None:
        with self.store.transaction() as connection:
            apply_batch(connection, messages, profiles=Profiles(), now_ms=NOW_MS)

    def play(self, number: int, script=WHOLE, **more) -> None:
        self.apply(*self.session(number, script, **more))

    def balances(self) -> dict[tuple[str, str], int]:
        with self.store.reading() as connection:
            assert ledger.verify(connection) == []
            return ledger.balances(connection)

    def money(self, account: str, course: str = COURSE) -> int:
        return self.balances().get((f"{account}:{course}", "USD"), 0)

    def uses(self, account: str, course: str = COURSE) -> int:
        return self.balances().get((f"{account}:{course}", "USE"), 0)

    def standings(self) -> dict[int, str]:
        with self.store.reading() as connection:
            return {row.session[15]: row.standing for row in connection.execute(select(billing_session))}

    def events(self) -> list[str]:
        with self.store.reading() as connection:
            return sorted(row.kind for row in connection.execute(select(event)))
