"""Passwords: argon2id hashes, generated passwords, and the rule for chosen ones. Not a login: no database, no names.

Invariant: checking costs the same whether or not there is a hash to check, so an answer's time does not tell who has an account.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

__all__ = ["PASSWORD_CHARS_MAX", "PASSWORD_CHARS_MIN", "Busy", "Cost", "Passwords", "complaint", "generate"]

PASSWORD_CHARS_MIN = 12  # NIST SP 800-63B asks for 8 at least; this account opens a fleet
PASSWORD_CHARS_MAX = 256  # argon2 takes more; a longer one is somebody feeding the hash
HASHES_AT_ONCE_MAX = 2  # 64 MiB each: a flood of logins must not take the machine's memory
SLOT_WAIT_S = 2.0  # a hash takes a tenth of a second; who waits longer stands in a flood, and must not hold a thread that serves pages

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without i l o 0 1, which people mistake for one another
_GENERATED_CHARS = 20  # 31 letters: 99 bits


class Busy(Exception):  # noqa: N818  a fault of the moment, not an error of the caller
    """Too many passwords are being checked at once; try again in a few seconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one hash costs: RFC 9106's second recommended option (64 MiB, three passes, four lanes)."""

    passes: int = 3
    memory_kib: int = 65_536
    lanes: int = 4


@dataclass(slots=True)
class Passwords:
    """Makes and checks hashes, a bounded number at a time."""

    cost: Cost = Cost()
    _hasher: PasswordHasher = field(init=False)
    _decoy: str = field(init=False)
    _slots: threading.BoundedSemaphore = field(init=False)

    def __post_init__(self) -> None:
        cost = self.cost
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes, type=Type.ID)
        self._decoy = self._hasher.hash("nobody has this password")
        self._slots = threading.BoundedSemaphore(HASHES_AT_ONCE_MAX)

    def hash(self, password: str) -> str:
        """Return the encoded argon2id hash of ``password`` with a fresh salt. Raises ``Busy``."""
        with self._slot():
            return self._hasher.hash(password)

    def verify(self, password: str, encoded: str | None) -> bool:
        """Tell whether ``password`` belongs to ``encoded``; without a hash do the same work and say no. Raises ``Busy``."""
        if len(password) > PASSWORD_CHARS_MAX:
            return False
        with self._slot():
            try:
                right = self._hasher.verify(encoded or self._decoy, password)
            except (VerificationError, InvalidHashError):
                return False
        return right and encoded is not None

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=SLOT_WAIT_S):
            raise Busy
        try:
            yield
        finally:
            self._slots.release()

    def is_outdated(self, encoded: str) -> bool:
        """Tell whether ``encoded`` was made with other costs and should be made again at the next login."""
        return self._hasher.check_needs_rehash(encoded)


def complaint(password: str, name: str) -> str | None:
    """Return why ``password`` may not be chosen by account ``name``, or ``None``."""
    if len(password) < PASSWORD_CHARS_MIN:
        return f"at least {PASSWORD_CHARS_MIN} characters"
    if len(password) > PASSWORD_CHARS_MAX:
        return f"at most {PASSWORD_CHARS_MAX} characters"
    if name.lower() in password.lower() or len(set(password)) < 5:
        return "not the account's name, and not the same few characters again and again"
    return None


def generate(entropy: Callable[[int], bytes]) -> str:
    """Return a password of 99 random bits in four groups, easy to read out; ``entropy`` gives that many random bytes."""
    letters: list[str] = []
    while len(letters) < _GENERATED_CHARS:
        # 248 = 8 x 31: larger bytes are thrown away so that every letter is equally likely
        letters.extend(_ALPHABET[byte % len(_ALPHABET)] for byte in entropy(_GENERATED_CHARS) if byte < 248)
    text = "".join(letters[:_GENERATED_CHARS])
    return "-".join(text[start : start + 5] for start in range(0, _GENERATED_CHARS, 5))
