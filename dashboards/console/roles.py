"""Roles: who may do what, as one table. Not a login (``auth``) and not the web (``guard``).

Invariant: a permission that a role's row does not list is refused; there is no rule outside this table.
"""

from collections.abc import Mapping
from enum import StrEnum

__all__ = ["GRANTS", "SITE_BOUND", "Permission", "Role", "may"]


class Role(StrEnum):
    """The closed list of roles."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    FINANCE = "finance"
    ADMIN = "admin"
    CLINIC = "clinic"


class Permission(StrEnum):
    """What a route asks for."""

    FLEET = "fleet"
    """Machines and their values."""
    GATEWAYS = "gateways"
    """Gateways, streams, gaps, receipts."""
    DEAD_LETTERS = "dead_letters"
    """See what was refused and why."""
    RETRY = "retry"
    """Send a dead letter through ingestion again."""
    HEALTH = "health"
    """Cursor lag, versions and counts of the cloud side."""
    USERS = "users"
    """See and change accounts, read the audit trail."""
    ACCOUNT = "account"
    """One's own password, sessions and API tokens."""


GRANTS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.FLEET, Permission.GATEWAYS, Permission.HEALTH, Permission.ACCOUNT}),
    Role.OPERATOR: frozenset(Permission) - {Permission.USERS},
    Role.FINANCE: frozenset({Permission.FLEET, Permission.ACCOUNT}),
    Role.ADMIN: frozenset(Permission),
    Role.CLINIC: frozenset({Permission.FLEET, Permission.GATEWAYS, Permission.ACCOUNT}),
}

SITE_BOUND = frozenset({Role.CLINIC})
"""Roles that see their own site only; an account of such a role names its site."""


def may(role: Role, permission: Permission) -> bool:
    """Tell whether ``role`` holds ``permission``."""
    return permission in GRANTS[role]
