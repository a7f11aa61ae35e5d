"""The typed fallback: twenty digits read out on the telephone when a token cannot be scanned. Pure: state in, state out.

A code is a counter's low ten bits and a 56-bit MAC under the gateway's own key (rule T2: it can mint for no other gateway). Each counter
value works once. Wrong codes start a brake that doubles from 1 to 512 minutes and is part of the state, so a power cycle does not lift it;
scanning and break-glass are never braked (rule T7, case E18).
"""

import hashlib
import hmac
from dataclasses import dataclass, replace

__all__ = ["AHEAD", "BEHIND", "BRAKE_MINUTES_MAX", "DIGITS", "CodeState", "Outcome", "check", "make"]

DIGITS = 20
AHEAD = 64
BEHIND = 16
BRAKE_MINUTES_MAX = 512  # the longest wait after a wrong code; a person on the telephone can wait for scan or break-glass instead
COUNTER_BITS = 10
MAC_BYTES = 7
KEY_BYTES = 32
FREE_ATTEMPTS = 1  # the first slip of a finger costs nothing
MS_PER_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class CodeState:
    """What a gateway remembers about typed codes; stored with the journal.

    ``highest`` is the largest counter accepted, ``used`` those accepted within ``BEHIND`` of it, ``wrong`` the wrong codes in a row and
    ``brake_left_ms`` what remains of the wait, in running time of the gateway (so that neither clock jumps nor power cycles shorten it).
    """

    highest: int = 0
    used: frozenset[int] = frozenset()
    wrong: int = 0
    brake_left_ms: int = 0

    def after(self, running_ms: int) -> "CodeState":
        """Return the state after ``running_ms`` more of running time."""
        return replace(self, brake_left_ms=max(0, self.brake_left_ms - running_ms))


@dataclass(frozen=True, slots=True)
class Outcome:
    """``counter`` of the accepted code, or ``None`` with the reason: ``malformed``, ``braked``, ``wrong``, ``used``."""

    state: CodeState
    counter: int | None
    reason: str = ""


def make(counter: int, key: bytes) -> str:
    """Return the twenty digits of ``counter`` in groups of five, for the Hub to read out."""
    if len(key) != KEY_BYTES or not 0 < counter < 2**63:
        msg = "a typed code needs a 32-byte key and a counter of at least 1"
        raise ValueError(msg)
    number = (int.from_bytes(_mac(counter, key), "big") << COUNTER_BITS) | (counter % 2**COUNTER_BITS)
    digits = f"{number:0{DIGITS}d}"
    return " ".join(digits[at : at + 5] for at in range(0, DIGITS, 5))


def _mac(counter: int, key: bytes) -> bytes:
    return hmac.new(key, b"icecap typed code v1" + counter.to_bytes(8, "big"), hashlib.sha256).digest()[:MAC_BYTES]


def check(text: str, state: CodeState, key: bytes) -> Outcome:
    """Judge a typed code against the window of ``BEHIND`` … ``AHEAD`` counters and return the next state.

    Blanks and hyphens do not count. A braked attempt is not looked at, so it costs nothing and tells nothing.
    """
    digits = text.replace(" ", "").replace("-", "")
    if len(digits) != DIGITS or not (digits.isascii() and digits.isdigit()):
        return Outcome(state, None, "malformed")
    if state.brake_left_ms > 0:
        return Outcome(state, None, "braked")
    number = int(digits)
    low, mac = number % 2**COUNTER_BITS, number >> COUNTER_BITS
    first = max(1, state.highest - BEHIND)
    for counter in range(first, state.highest + AHEAD + 1):
        if counter % 2**COUNTER_BITS != low or mac >= 2 ** (8 * MAC_BYTES):
            continue
        if hmac.compare_digest(_mac(counter, key), mac.to_bytes(MAC_BYTES, "big")):
            return _accept(state, counter)
    return Outcome(_braked(state), None, "wrong")


def _accept(state: CodeState, counter: int) -> Outcome:
    if counter in state.used or counter < state.highest - BEHIND:
        return Outcome(state, None, "used")
    highest = max(state.highest, counter)
    kept = frozenset(one for one in state.used | {counter} if one >= highest - BEHIND)
    return Outcome(CodeState(highest, kept), counter)


def _braked(state: CodeState) -> CodeState:
    wrong = state.wrong + 1
    minutes = 0 if wrong <= FREE_ATTEMPTS else min(2 ** (wrong - FREE_ATTEMPTS - 1), BRAKE_MINUTES_MAX)
    return replace(state, wrong=wrong, brake_left_ms=minutes * MS_PER_MINUTE)
