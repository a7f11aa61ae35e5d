"""What the boards share: their names, their frame, and the channels of a profile by role. Not a board."""

from collections.abc import Sequence

from dashboards.grafana import SCHEMA_VERSION, BoardLink, Dashboard, Panel, Templating, TimeRange, Variable
from dashboards.panels import lay_out, source_choice
from protocol.profile import Channel, Profile, Role

__all__ = ["FLEET_UID", "PIPELINE_UID", "TAG", "frame", "machine_uid", "of_role", "the_one"]

TAG = "icecap"
FLEET_UID = "icecap-fleet"
PIPELINE_UID = "icecap-pipeline"
UID_CHARS_MAX = 40  # Grafana's own limit


def machine_uid(profile: Profile) -> str:
    """The address of the board of a model's machines; raises ``ValueError`` when the profile's id makes it too long for Grafana."""
    uid = f"icecap-machine-{profile.id}"
    if len(uid) > UID_CHARS_MAX:
        raise ValueError(f"profile {profile.id!r}: a board's uid has at most {UID_CHARS_MAX} characters")
    return uid


def frame(uid: str, title: str, description: str, *, choices: Sequence[Variable], panels: Sequence[Panel], since: str) -> Dashboard:
    """A board with the data source first among its choices and a way to the other boards."""
    link = BoardLink(
        type="dashboards",
        title="Icecap",
        icon="external link",
        tooltip="The other boards",
        url="",
        target_blank=False,
        tags=(TAG,),
        as_dropdown=True,
        include_vars=True,
        keep_time=True,
    )
    return Dashboard(
        uid=uid,
        title=title,
        description=description,
        tags=(TAG,),
        timezone="browser",
        schema_version=SCHEMA_VERSION,
        editable=False,
        graph_tooltip=1,
        refresh="30s",
        time=TimeRange(from_=since, to="now"),
        templating=Templating(list=(source_choice(), *choices)),
        links=(link,),
        panels=lay_out(panels),
    )


def of_role(profiles: Sequence[Profile], role: Role) -> tuple[Channel, ...]:
    """The channels of a role in all profiles, one of each name: a fleet of several models is shown in one chart."""
    by_name = {channel.name: channel for profile in profiles for channel in profile.by_role(role)}
    return tuple(by_name[name] for name in sorted(by_name))


def the_one(profiles: Sequence[Profile], role: Role) -> Channel:
    """The first channel of a role; ``KeyError`` when no profile has one."""
    found = of_role(profiles, role)
    if not found:
        raise KeyError(role)
    return found[0]
