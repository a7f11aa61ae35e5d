"""Profiles as the cloud knows them: those of the product and those that sites brought. Not a registry of machines.

Invariant: a block's codes are only named by the profile of exactly the id and version that the block states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.profile import Profile, builtin, builtin_ids

__all__ = ["Profiles"]


@dataclass(frozen=True, slots=True)
class Profiles:
    """Finds profiles; ``site`` are those that the configuration names, by id and version, so that old blocks keep their meaning."""

    site: Mapping[tuple[str, int], Profile] = field(default_factory=dict)

    def find(self, profile_id: str, version: int) -> Profile | None:
        """The profile of that id and version; ``None`` when this program does not have it."""
        if found := self.site.get((profile_id, version)):
            return found
        product = _product(profile_id)
        return product if product is not None and product.version == version else None

    def latest(self, profile_id: str) -> Profile | None:
        """The newest version of a profile, for messages that state none; ``None`` when there is no profile of that id."""
        own = [profile for (name, _), profile in self.site.items() if name == profile_id]
        return max(own, key=lambda profile: profile.version) if own else _product(profile_id)


def _product(profile_id: str) -> Profile | None:
    return builtin(profile_id) if profile_id in builtin_ids() else None
