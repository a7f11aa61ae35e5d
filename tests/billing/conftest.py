"""A migrated store on both engines."""

from collections.abc import Iterator

import pytest

from ingest.store import Store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    one = Store.open(store_url)
    one.migrate()
    yield one
    one.close()
