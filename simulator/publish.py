"""Publish: simulated coolers on a clinic's MQTT broker, each with its own certificate and connection. It invents nothing (``world`` does).

A cooler keeps what the broker has not acknowledged and sends it again on the next connection, as a machine with a little flash would; the
oldest is shed beyond a bound, and counted. Invariant: a number counts as delivered only after a PUBACK without an error: what this module
calls acknowledged is what the cloud must hold.
"""

import random
import ssl
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from protocol.clock import Timer
from protocol.profile import Profile
from provisioning.broker import COOLER_ROOT
from simulator.runs import Runs
from simulator.world import Row

__all__ = ["Feed", "Tally", "Wire", "payload"]

KEPT_ROWS_MAX = 36_000  # ten hours of a machine's own memory
WINDOW = 64  # unacknowledged on the wire at once
KEEPALIVE_S = 20
CONNECT_S = 3.0
RETRY_S = 0.5  # shortest wait between attempts to connect; up to four times as long, by chance
REFUSED_PAUSE_S = 1.0  # after "no matching subscribers" the gateway is not there yet: do not hammer

Key = tuple[int, int]  # boot and counter


@dataclass(frozen=True, slots=True)
class Wire:
    """Where the broker is, whom to trust, and the folder that holds ``SERIAL.crt`` and ``SERIAL.key``."""

    host: str
    port: int
    ca: Path
    credentials: Path

    def context(self, serial: str) -> ssl.SSLContext:
        """TLS as one cooler speaks it."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.credentials / f"{serial}.crt", self.credentials / f"{serial}.key")
        return context


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of one cooler: made, acknowledged by the broker, kept for later, given up, and publishes in all (repeats included)."""

    made: int
    acknowledged: int
    kept: int
    shed: int
    publishes: int


def payload(row: Row, profile: Profile) -> bytes:
    """Return a row as the JSON that coolers send; a channel without a value is left out, for missing is not zero."""
    fields: dict[str, float] = {"boot": row.boot, "n": row.sample.counter, "t": row.sample.ts_ms}
    for channel, code in zip(profile.channels, row.sample.codes, strict=True):
        if code is not None:
            fields[channel.name] = channel.scale.to_value(code) if channel.decimals else code * channel.multiplier
    return msgspec.json.encode(fields)


class _End(Enum):
    """What else a connection may tell than that a message was answered."""

    OPENED = "opened"
    LOST = "lost"


_News = tuple[int, int | _End, ReasonCode | None]  # generation of the connection, message number or what happened, answer


class Feed:
    """One cooler's way to the broker. Everything here runs in the caller's thread.

    The library calls back on its own thread and with its own locks held, so a callback only leaves word in a queue that ``pump`` empties.
    """

    def __init__(self, serial: str, wire: Wire, *, timer: Timer, chance: random.Random) -> None:
        self.serial = serial
        self.acknowledged: dict[int, Runs] = defaultdict(Runs)
        self._wire, self._timer, self._chance = wire, timer, chance
        self._kept: dict[Key, bytes] = {}  # in the order of making
        self._flying: dict[int, Key] = {}  # by message number of the present connection
        self._on_wire: set[Key] = set()
        self._news: SimpleQueue[_News] = SimpleQueue()
        self._client: paho.Client | None = None
        self._generation = 0
        self._is_up = False
        self._not_before_s = 0.0
        self._made = self._shed = self._publishes = 0

    def offer(self, row: Row, data: bytes) -> None:
        """Keep a row until it is acknowledged."""
        self._made += 1
        self._kept[row.boot, row.sample.counter] = data
        while len(self._kept) > KEPT_ROWS_MAX:
            del self._kept[next(iter(self._kept))]
            self._shed += 1

    def pump(self) -> None:
        """Take in what the broker answered, connect when it is time to, and put on the wire what the window allows."""
        self._take_news()
        if self._timer() < self._not_before_s:
            return
        if self._client is None:
            self._connect()
        elif self._is_up:
            self._send(self._client)

    @property
    def tally(self) -> Tally:
        """Where this cooler's rows are."""
        acknowledged = sum(len(runs) for runs in self.acknowledged.values())
        return Tally(self._made, acknowledged, len(self._kept), self._shed, self._publishes)

    def close(self) -> None:
        """Leave the broker and end the library's thread; what it answered until then still counts."""
        client, self._client = self._client, None
        self._is_up = False
        if client:
            client.disconnect()
            client.loop_stop()
        self._take_news()

    def _send(self, client: paho.Client) -> None:
        free = WINDOW - len(self._flying)
        waiting = (key for key in self._kept if key not in self._on_wire)
        for key in list(islice(waiting, free)):
            info = client.publish(f"{COOLER_ROOT}/{self.serial}/telemetry", self._kept[key], qos=1)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return  # the connection is going; its end is in the queue
            self._publishes += 1
            self._flying[info.mid] = key
            self._on_wire.add(key)

    def _connect(self) -> None:
        self._generation += 1
        generation, put = self._generation, self._news.put
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self.serial, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(WINDOW)
        client.on_connect = lambda _client, _data, _flags, reason, _properties: put((generation, _End.OPENED, reason))
        client.on_disconnect = lambda _client, _data, _flags, reason, _properties: put((generation, _End.LOST, reason))
        client.on_publish = lambda _client, _data, mid, reason, _properties: put((generation, mid, reason))
        try:
            client.tls_set_context(self._wire.context(self.serial))
            client.connect(self._wire.host, self._wire.port, KEEPALIVE_S)
        except OSError:  # refused, timed out, or TLS (ssl.SSLError is one): the broker is not there
            self._not_before_s = self._timer() + RETRY_S * self._chance.uniform(1.0, 4.0)
            return
        self._client = client
        client.loop_start()

    def _take_news(self) -> None:
        while not self._news.empty():
            generation, what, reason = self._news.get()
            if generation != self._generation:
                continue  # an older connection's last words: whatever it carried is sent again
            if what is _End.OPENED:
                self._is_up = reason is not None and not reason.is_failure
            elif what is _End.LOST:
                self._lose()
            elif isinstance(what, int) and reason is not None:
                self._answer(what, reason)

    def _lose(self) -> None:
        """Everything that was on the wire is to be sent again."""
        self._client, self._is_up = None, False
        self._flying.clear()
        self._on_wire.clear()
        self._not_before_s = self._timer() + RETRY_S * self._chance.uniform(1.0, 4.0)

    def _answer(self, mid: int, reason: ReasonCode) -> None:
        """0x00 alone is an acceptance: 0x10 says that nobody listens, 0x87 that we may not."""
        key = self._flying.pop(mid, None)
        if key is None:
            return
        self._on_wire.discard(key)
        if reason.value == 0:
            self._kept.pop(key, None)
            self.acknowledged[key[0]].add(key[1])
        else:
            self._not_before_s = self._timer() + REFUSED_PAUSE_S
