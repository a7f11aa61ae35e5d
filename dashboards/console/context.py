"""Context: what every route needs, in one immutable object on the application. Not a service locator for anything else.

Invariant: routes get time, store and settings from here only; none of them reads a clock, a file or the environment.
"""

from dataclasses import dataclass
from typing import cast

from fastapi import Request
from jinja2 import Environment

from dashboards.console.auth import Door
from dashboards.console.drawing import SparkCache
from dashboards.console.present import Ages
from dashboards.console.settings import Settings
from ingest.profiles import Profiles
from ingest.store import Store
from protocol.clock import Clock
from protocol.profile import Profile, ProfileError, load

__all__ = ["Console", "console_of"]


@dataclass(frozen=True, slots=True)
class Console:
    """``clock`` is the machines' time (scaled in the demo); the door has people's time of its own."""

    store: Store
    clock: Clock
    door: Door
    settings: Settings
    site_profiles: dict[str, Profile]
    pages: Environment
    sparks: SparkCache

    @property
    def ages(self) -> Ages:
        """When data count as late and as silent."""
        return Ages(self.settings.fleet.late_after_s * 1000, self.settings.fleet.silent_after_s * 1000)

    @property
    def profiles(self) -> Profiles:
        """The profiles as ingestion takes them."""
        return Profiles({(one.id, one.version): one for one in self.site_profiles.values()})

    def profile(self, profile_id: str) -> Profile | None:
        """Return a profile, or ``None`` when nobody has installed it here."""
        try:
            return load(profile_id, self.site_profiles)
        except ProfileError:
            return None


def console_of(request: Request) -> Console:
    """Return the application's context."""
    return cast("Console", request.app.state.console)
