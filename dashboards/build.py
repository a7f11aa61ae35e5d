"""Build: every board as a JSON file that Grafana takes as it is, by API or by file provisioning. Talks to nobody.

Invariant: the files in ``generated`` are what the code gives; ``drift`` names each that is not.
"""

from pathlib import Path

import msgspec

from dashboards.boards import fleet, machine, pipeline
from dashboards.grafana import Dashboard
from protocol.profile import Profile, builtin, builtin_ids

__all__ = ["GENERATED", "boards", "drift", "render", "write"]

GENERATED = Path(__file__).parent / "generated"


def boards(site_profiles: tuple[Profile, ...] = ()) -> tuple[Dashboard, ...]:
    """All boards over the built-in profiles and a site's own."""
    profiles = (*(builtin(one) for one in builtin_ids()), *site_profiles)
    return (fleet.board(profiles), *(machine.board(profile) for profile in profiles), pipeline.board(profiles))


def render(board: Dashboard) -> bytes:
    """Return a board's file: indented, so that a change is read in a review."""
    return msgspec.json.format(msgspec.json.encode(board), indent=2) + b"\n"


def write(folder: Path, made: tuple[Dashboard, ...]) -> list[Path]:
    """Write each board to ``folder`` as ``<uid>.json`` and remove boards of ours that are no more; return what is there now."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {folder / f"{board.uid}.json": render(board) for board in made}
    for path in set(folder.glob("icecap-*.json")) - set(wanted):
        path.unlink()
    for path, data in wanted.items():
        path.write_bytes(data)
    return sorted(wanted)


def drift(folder: Path, made: tuple[Dashboard, ...]) -> list[str]:
    """Return one sentence for each file that is missing, different or left over; nothing when the folder is as built."""
    wanted = {f"{board.uid}.json": render(board) for board in made}
    found = {path.name: path.read_bytes() for path in folder.glob("icecap-*.json")}
    missing = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    extra = [f"{name} is no board of ours any more" for name in sorted(found.keys() - wanted.keys())]
    changed = [f"{name} differs from the code" for name in sorted(wanted.keys() & found.keys()) if wanted[name] != found[name]]
    return [*missing, *extra, *changed]
