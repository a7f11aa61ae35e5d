"""A migrated store in each engine, with two gateways that may send and one that may not any more."""

from collections.abc import Iterator

import pytest

from ingest.store import Store
from provisioning import registry

GATEWAY = "gw-test-1"
OTHER_GATEWAY = "gw-test-2"
REVOKED_GATEWAY = "gw-test-9"
SITE = "clinic-a"


def register(store: Store) -> None:
    with store.transaction() as connection:
        registry.add_site(connection, registry.Site(SITE, "Clinic A", "Europe/Berlin", 0))
        for gateway in (GATEWAY, OTHER_GATEWAY, REVOKED_GATEWAY):
            registry.add_gateway(connection, gateway, site_id=SITE, at_ms=0)
        registry.revoke_gateway(connection, REVOKED_GATEWAY, at_ms=1)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    one = Store.open(store_url)
    one.migrate()
    register(one)
    yield one
    one.close()
