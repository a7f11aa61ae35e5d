"""Fuzz every decoder of the wire: frames, blocks, facts, tombstones, receipts, state messages.

The first byte chooses the decoder. A refusal is an answer; an exception is a finding, and so is a fact or frame that encodes otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from seeds import with_checksum

with atheris.instrument_imports(include=["protocol"]):
    from protocol import block, facts, frame, receipt, state, tombstone

from protocol.clock import ClockQuality
from protocol.facts import CHAIN_START, FactRecord, SessionEvent
from protocol.frame import FrameHead, Identity, Kind
from protocol.reading import Stamp
from protocol.refusal import Refusal
from protocol.units import DeviceId, GatewayId


def whole_frame(data: bytes) -> None:
    """A frame whose checksum fits, so that the fuzzer gets past it; what is accepted encodes to the same bytes."""
    sealed = with_checksum(data)
    answer = frame.decode(sealed)
    if not isinstance(answer, Refusal):
        assert frame.encode(answer.head, answer.body) == sealed


def one_fact(data: bytes) -> None:
    """A fact has one spelling."""
    answer = facts.decode(data)
    if not isinstance(answer, Refusal):
        assert facts.encode(answer) == data


DECODERS = (whole_frame, one_fact, block.decode, tombstone.decode, receipt.decode, state.decode)


def one_input(data: bytes) -> None:
    """Decode mutated bytes with the decoder that the first byte chooses."""
    if data:
        DECODERS[data[0] % len(DECODERS)](data[1:])


def seeds() -> list[bytes]:
    """One valid message of each kind behind its decoder's number."""
    rows = block.Rows(
        1000 * np.arange(4, dtype=np.int64),
        np.array([[1, 2], [0, 3], [4, 0], [5, 6]]),
        np.array([[0, 0], [1, 0], [0, 4], [0, 0]], dtype=np.uint8),
        np.arange(4, dtype=np.int64),
        7,
        {5: 99},
    )
    body = block.encode(rows)
    head = FrameHead(
        Identity(GatewayId("gw-a"), 1, 2), Kind.BLOCK, Stamp(3, 4, 5, ClockQuality.SYNCED), DeviceId("cooler-0001"), "icecap-cooler", 1
    )
    fact = facts.encode(FactRecord(SessionEvent(bytes(16), "cooling_on", 5), CHAIN_START))
    stone = tombstone.encode(tombstone.Tombstone(1, 9, tombstone.Cause.EVICTED, 60))
    told = receipt.encode(receipt.Receipt(1, 5, (receipt.Gap(6, 7),), seen=9))
    live = state.encode(state.Live("cooler-0001", "icecap-cooler", 5, {"flow_1": 1800}))
    return [bytes((number,)) + one for number, one in enumerate((frame.encode(head, body)[:-4], fact, body, stone, told, live))]


def main() -> None:
    """Write the seeds into the corpus folder and fuzz."""
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if corpus:
        for number, seed in enumerate(seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
