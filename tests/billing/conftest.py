"""A migrated store on both engines."""

from collections.abc import Iterator

import pytest

from ingest.store import Store


@pytest.fixture
def store(migrated_url: str) -> Iterator[Store]:
    one = Store.open(migrated_url)
    yield one
    one.close()
