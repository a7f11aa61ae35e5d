"""Brake: how long a login must wait after failures. Pure arithmetic; who counts them is ``auth``. Not a lock: nobody is shut out for ever.

Invariant: the wait depends only on earlier failures, never on whether this password is right; a guess inside the wait is not even checked.
"""

from dataclasses import dataclass

__all__ = ["ACCOUNT", "ADDRESS", "FORGET_MS", "PAIR", "Rule", "Tally", "blocked_ms", "failed"]

FORGET_MS = 24 * 3_600_000  # a day without a failure and the tally starts again


@dataclass(frozen=True, slots=True)
class Rule:
    """``free`` failures cost nothing; then the wait doubles from one second up to ``wait_ms_max``."""

    free: int
    wait_ms_max: int


PAIR = Rule(free=4, wait_ms_max=15 * 60_000)
"""One account from one address: the ordinary guesser; 10,000 guesses take over three months."""
ACCOUNT = Rule(free=20, wait_ms_max=60_000)
"""One account from everywhere: slow enough to stop guessing, short enough that a stranger cannot keep the owner out."""
ADDRESS = Rule(free=40, wait_ms_max=15 * 60_000)
"""All accounts from one address: password spraying. A clinic behind one address has forty free slips a day."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Failures so far and when the last one was."""

    failures: int = 0
    last_ms: int = 0


def blocked_ms(rule: Rule, tally: Tally, now_ms: int) -> int:
    """Return for how many more milliseconds a login must be refused (0: it may be tried)."""
    over = tally.failures - rule.free
    if over <= 0 or now_ms - tally.last_ms >= FORGET_MS:
        return 0
    wait_ms = min(1000 << min(over - 1, 30), rule.wait_ms_max)
    # A clock set back must not lengthen the wait beyond the rule.
    return min(max(tally.last_ms + wait_ms - now_ms, 0), rule.wait_ms_max)


def failed(tally: Tally, now_ms: int) -> Tally:
    """Return the tally after one more failure."""
    if now_ms - tally.last_ms >= FORGET_MS:
        return Tally(1, now_ms)
    return Tally(tally.failures + 1, now_ms)
