"""Any history of an outbox and its cloud: at the end, stored = delivered + tombstoned, number by number and sample by sample."""

import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.outbox.store import Store
from ingest.positions import Position
from protocol import block, facts, tombstone
from protocol.frame import Frame, Kind, decode
from protocol.receipt import GAPS_MAX, Receipt
from protocol.topics import Lane
from tests.support.outbox import BOOT, SMALL, make_fact, make_row, open_store, profile, read_all

LIMITS = replace(SMALL, telemetry_bytes_max=110_000, seal_rows=20)


class OutboxAndCloud(RuleBasedStateMachine):
    """The store is real; the cloud is a dictionary that never forgets; the wire between them loses what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="icecap-outbox-"))
        self.boot = BOOT
        self.store: Store = open_store(self.folder, limits=LIMITS)
        self.counter = 0
        self.accepted: set[int] = set()
        self.facts: set[int] = set()
        self.committed: dict[tuple[int, int], bytes] = {}
        self.positions: dict[int, Position] = {}
        self.samples: set[int] = set()
        self.cloud_facts: set[int] = set()
        self.buried_rows = 0
        self.old_receipts: list[Receipt] = []

    @rule(count=st.integers(1, 60))
    def append(self, count: int) -> None:
        rng = random.Random(self.counter)
        rows = []
        for _ in range(count):
            self.counter += 1
            rows.append(make_row(self.counter, codes=tuple(rng.randrange(-(2**50), 2**50) for _ in profile().channels)))
        assert self.store.append_groups([rows])[0].accepted == count
        self.accepted.update(range(self.counter - count + 1, self.counter + 1))

    @precondition(lambda self: self.counter)
    @rule(data=st.data())
    def redeliver(self, data: st.DataObject) -> None:
        counter = data.draw(st.integers(1, self.counter))
        assert self.store.append_groups([[make_row(counter)]])[0].duplicates == 1

    @rule(lane=st.sampled_from([Lane.METERING, Lane.ALARM]))
    def append_fact(self, lane: Lane) -> None:
        number = len(self.facts)
        self.store.append_fact(lane, make_fact(number))
        self.facts.add(number)

    @rule()
    def seal(self) -> None:
        self.store.seal_all()

    @rule()
    def tick(self) -> None:
        self.store.tick()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.boot += 1
        self.store = open_store(self.folder, limits=LIMITS, boot=self.boot, seed=self.boot % 2**32)

    @rule(lane=st.sampled_from(Lane), data=st.data())
    def deliver(self, lane: Lane, data: st.DataObject) -> None:
        waiting = read_all(self.store, lane)
        for record in data.draw(st.lists(st.sampled_from(waiting), max_size=12)) if waiting else []:
            self._commit(record.identity.stream, record.identity.seq, record.last, record.data)

    @rule(data=st.data())
    def receipt(self, data: st.DataObject) -> None:
        if self.positions:
            stream = data.draw(st.sampled_from(sorted(self.positions)))
            receipt = self._receipt(stream)
            self.old_receipts.append(receipt)
            assert not self.store.apply_receipt(receipt).forked

    @precondition(lambda self: self.old_receipts)
    @rule(data=st.data())
    def receipt_again(self, data: st.DataObject) -> None:
        assert not self.store.apply_receipt(data.draw(st.sampled_from(self.old_receipts))).forked

    @invariant()
    def what_is_not_receipted_is_here(self) -> None:
        stats = self.store.stats()
        assert stats.ready
        assert stats.used_bytes <= LIMITS.telemetry_bytes_max + 400_000
        assert stats.counts.corrupt_rows == 0

    def teardown(self) -> None:
        try:
            self._drain()
        finally:
            self.store.close()
            shutil.rmtree(self.folder)

    def _drain(self) -> None:
        self.store.seal_all()
        for lane in Lane:
            for record in read_all(self.store, lane):
                self._commit(record.identity.stream, record.identity.seq, record.last, record.data)
        for stream, position in self.positions.items():
            assert not position.gaps, f"numbers of stream {stream} are unaccounted for: {position.gaps}"
            self.store.apply_receipt(self._receipt(stream))
        assert all(not read_all(self.store, lane) for lane in Lane)
        missing = self.accepted - self.samples
        assert len(missing) <= self.buried_rows, f"{len(missing)} samples gone, {self.buried_rows} tombstoned"
        assert self.samples <= self.accepted
        assert self.cloud_facts == self.facts

    def _receipt(self, stream: int) -> Receipt:
        position = self.positions[stream]
        return Receipt(stream, position.up_to, tuple(position.gaps[:GAPS_MAX]), seen=position.top)

    def _commit(self, stream: int, seq: int, last: int, data: bytes) -> None:
        """What ingest does with a frame: once by identity; a tombstone over numbers that are there changes nothing."""
        position = self.positions.setdefault(stream, Position())
        if position.accounts(seq) and position.accounts(last):
            return
        self.committed[stream, seq] = data
        frame = decode(data)
        assert isinstance(frame, Frame)
        if frame.head.kind == Kind.BLOCK:
            rows = block.decode(frame.body)
            assert isinstance(rows, block.Rows)
            assert rows.counters is not None
            got = set(rows.counters.tolist())
            assert not got & self.samples, "a sample came under two identities"
            self.samples |= got
        elif frame.head.kind == Kind.TOMBSTONE:
            grave = tombstone.decode(frame.body)
            assert isinstance(grave, tombstone.Tombstone)
            self.buried_rows += grave.rows
        else:
            record = facts.decode(frame.body)
            assert isinstance(record, facts.FactRecord)
            if isinstance(record.fact, facts.Audit) and record.fact.event == "test":
                self.cloud_facts.add(record.fact.detail["number"])
        position.account(seq, last)


TestOutboxAndCloud = OutboxAndCloud.TestCase
TestOutboxAndCloud.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
