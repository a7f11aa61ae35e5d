from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine

from provisioning import registry
from provisioning.registry import RegistryError, Site, Status

DAY = 86_400_000


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as one:
        registry.metadata.create_all(one)
        registry.add_site(one, Site("clinic-a", "Clinic A", "Europe/Berlin", 0))
        registry.add_site(one, Site("clinic-b", "Clinic B", "Europe/Berlin", 0))
        registry.add_gateway(one, "gw-a", site_id="clinic-a", at_ms=0)
        registry.add_gateway(one, "gw-b", site_id="clinic-b", at_ms=0)
        yield one
    engine.dispose()


def test_a_revoked_gateway_keeps_its_row_and_its_id(connection: Connection) -> None:
    registry.revoke_gateway(connection, "gw-a", at_ms=DAY)

    found = registry.find_gateways(connection, ["gw-a", "gw-none"])

    assert list(found) == ["gw-a"]
    assert (found["gw-a"].status, found["gw-a"].valid_to_ms) == (Status.REVOKED, DAY)
    with pytest.raises(RegistryError, match="never used again"):
        registry.add_gateway(connection, "gw-a", site_id="clinic-a", at_ms=2 * DAY)
    with pytest.raises(RegistryError, match="no active one"):
        registry.revoke_gateway(connection, "gw-a", at_ms=2 * DAY)


def test_a_cooler_that_moved_is_found_where_it_stood_then(connection: Connection) -> None:
    registry.place_device(connection, "cooler-1", gateway_id="gw-a", profile="icecap-cooler", at_ms=DAY)
    registry.place_device(connection, "cooler-1", gateway_id="gw-b", profile="icecap-cooler", at_ms=3 * DAY)

    stays = [registry.find_device(connection, "cooler-1", at_ms=at) for at in (0, DAY, 3 * DAY - 1, 3 * DAY, 9 * DAY)]

    assert [stay and stay.site for stay in stays] == ["clinic-a", "clinic-a", "clinic-a", "clinic-b", "clinic-b"]
    assert [one.serial for one in registry.devices(connection)] == ["cooler-1"]


def test_a_retired_cooler_stands_nowhere(connection: Connection) -> None:
    registry.place_device(connection, "cooler-1", gateway_id="gw-a", profile="icecap-cooler", at_ms=DAY)
    registry.retire_device(connection, "cooler-1", at_ms=2 * DAY)

    assert registry.devices(connection) == ()
    assert registry.find_device(connection, "cooler-1", at_ms=2 * DAY) is None
    assert registry.find_device(connection, "cooler-1", at_ms=DAY) is not None
    with pytest.raises(RegistryError, match="stands nowhere"):
        registry.retire_device(connection, "cooler-1", at_ms=3 * DAY)


def test_history_is_not_rewritten(connection: Connection) -> None:
    registry.place_device(connection, "cooler-1", gateway_id="gw-a", profile="icecap-cooler", at_ms=2 * DAY)

    with pytest.raises(RegistryError, match="last move"):
        registry.place_device(connection, "cooler-1", gateway_id="gw-b", profile="icecap-cooler", at_ms=DAY)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 121])
def test_a_site_name_that_no_page_can_show_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(RegistryError, match="name"):
        registry.add_site(connection, Site("clinic-c", name, "Europe/Berlin", 0))


@pytest.mark.parametrize("bad", ["gw", "gw-UPPER", "gw-a/b", "gw-+", "gw-" + "x" * 30, "cooler-1"])
def test_a_gateway_id_that_could_not_be_a_topic_level_is_refused(connection: Connection, bad: str) -> None:
    with pytest.raises(RegistryError, match="id is gw-"):
        registry.add_gateway(connection, bad, site_id="clinic-a", at_ms=0)


def test_unknown_places_are_refused(connection: Connection) -> None:
    with pytest.raises(RegistryError, match="no site"):
        registry.add_gateway(connection, "gw-c", site_id="clinic-z", at_ms=0)
    with pytest.raises(RegistryError, match="no active gateway"):
        registry.place_device(connection, "cooler-1", gateway_id="gw-z", profile="icecap-cooler", at_ms=0)
    with pytest.raises(RegistryError, match="serial"):
        registry.place_device(connection, "Cooler 1", gateway_id="gw-a", profile="icecap-cooler", at_ms=0)
    with pytest.raises(RegistryError, match="exists"):
        registry.add_site(connection, Site("clinic-a", "Again", "UTC", 0))
