"""Fixtures of the uplink's tests: an outbox, a real cloud broker with its consumer, and a fake one that misbehaves."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.outbox import Outbox
from edge.settings import CloudConfig
from provisioning.identity import Authority, Realm
from tests.support.cloud import Cloud, FakeBroker
from tests.support.mtls import CLOCK, TlsBroker, make_tls_broker
from tests.support.outbox import GATEWAY, host
from tests.support.uplink import LIMITS, WORKER, config_for, credentials, make_fake


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    one = Outbox.open(tmp_path / "outbox", host(seed=os.getpid()), LIMITS)
    yield one
    one.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"), realm=Realm.CLOUD, clock=CLOCK)


@pytest.fixture
def broker(require: Callable[[str], Path], tmp_path: Path) -> Iterator[TlsBroker]:
    one = make_tls_broker(require("mosquitto"), tmp_path / "cloud", gateways=[GATEWAY])
    one.service.start()
    yield one
    one.service.stop()


@pytest.fixture
def config(broker: TlsBroker) -> CloudConfig:
    return config_for(broker.port, broker.credentials(GATEWAY))


@pytest.fixture
def cloud(broker: TlsBroker) -> Cloud:
    return Cloud(GATEWAY, broker.port, broker.credentials(WORKER))


@pytest.fixture
def fake(authority: Authority, tmp_path: Path) -> Iterator[FakeBroker]:
    one = make_fake(authority, tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def fake_config(fake: FakeBroker, authority: Authority, tmp_path: Path) -> CloudConfig:
    return config_for(fake.port, credentials(authority, tmp_path / "client"))
