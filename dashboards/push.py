"""Push: the boards into a running Grafana, through one transport. Pushing twice is the same as pushing once.

Invariant: uids are ours and fixed, ``overwrite`` is always said: a board that somebody changed by hand is replaced, never doubled.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from dashboards.grafana import Dashboard
from provisioning.grafana import GrafanaTransport, Json, ensure_folder

__all__ = ["FOLDER_TITLE", "FOLDER_UID", "Pushed", "body", "push"]

FOLDER_UID = "icecap"
FOLDER_TITLE = "Icecap"
MESSAGE = "icecap dashboards push"
"""What Grafana's version history shows beside each push."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A board that is there now, and its address below Grafana's."""

    uid: str
    url: str
    version: int


def body(board: Dashboard, folder_uid: str) -> Json:
    """Return what ``POST /api/dashboards/db`` takes."""
    return {"dashboard": {"id": None, **msgspec.to_builtins(board)}, "folderUid": folder_uid, "overwrite": True, "message": MESSAGE}


def push(transport: GrafanaTransport, boards: Iterable[Dashboard], *, folder_uid: str = FOLDER_UID) -> list[Pushed]:
    """Put every board into the folder, which is made when it is not there. Raises ``GrafanaError`` at the first that is refused."""
    ensure_folder(transport, folder_uid, FOLDER_TITLE)
    done = []
    for board in boards:
        answer = transport.request("POST", "/dashboards/db", body(board, folder_uid))
        done.append(Pushed(board.uid, str(answer.get("url", "")), int(str(answer.get("version", 0)))))
    return done
