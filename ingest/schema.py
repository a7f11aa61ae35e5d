"""Schema: the cloud's tables as SQLAlchemy Core objects. Not the queries, and not the registry (``provisioning.registry`` has its own).

Invariant: rows of ``block``, ``fact``, ``tombstone``, ``conflict`` and ``console_audit`` are evidence (``IMMUTABLE``): triggers in both
engines refuse to change or delete them. All times end in ``_ms`` (milliseconds since 1970 UTC), all sizes are bytes, all codes and counts
are integers.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from provisioning.registry import NAMING

__all__ = [
    "ARRIVAL",
    "DEAD_LETTER_BYTES_MAX",
    "IMMUTABLE",
    "block",
    "conflict",
    "console_audit",
    "console_brake",
    "console_session",
    "console_token",
    "console_user",
    "consumer_session",
    "counter",
    "cursor",
    "dead_letter",
    "device_seen",
    "event",
    "fact",
    "gap",
    "gateway_status",
    "last_value",
    "metadata",
    "notification_outbox",
    "parked",
    "projection_reject",
    "rollup_1m",
    "stream",
    "tombstone",
]

DEAD_LETTER_BYTES_MAX = 262_144  # the shipped broker's max_packet_size: whatever it lets through fits whole
ARRIVAL = "arrival"
"""The row of ``counter`` that numbers blocks and facts. Whoever writes them locks it first, so arrival order is commit order."""

metadata = MetaData(naming_convention=NAMING)

Number = BigInteger
RowId = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER PRIMARY KEY is SQLite's own row number
Name = String(32)  # gateways, coolers and profiles are named by at most 32 characters (protocol/units.py)
Word = String(64)  # names from our own code: reasons, kinds, roles
Hash = LargeBinary(32)


def _identity() -> tuple[Column[str], Column[int], Column[int]]:
    return Column("gateway", Name, nullable=False), Column("stream", Number, nullable=False), Column("seq", Number, nullable=False)


def _stamp() -> tuple[Column[str], Column[int], Column[int], Column[int]]:
    return (
        Column("boot", String(16), nullable=False, comment="the gateway's boot id in hex: 64 bits without a sign"),
        Column("monotonic_ms", Number, nullable=False, comment="since that boot"),
        Column("wall_ms", Number, nullable=False, comment="the gateway's clock: for people"),
        Column("clock_quality", Integer, nullable=False, comment="protocol.clock.ClockQuality"),
    )


counter = Table("counter", metadata, Column("name", Word, primary_key=True), Column("value", Number, nullable=False))

stream = Table(
    "stream",
    metadata,
    Column("gateway", Name, nullable=False),
    Column("stream", Number, nullable=False),
    Column("lane", String(1), nullable=False),
    Column("up_to", Number, nullable=False, comment="everything up to here is accounted for"),
    Column("top", Number, nullable=False, comment="the largest number seen"),
    Column("head", String(64), nullable=False, comment="hex hash of the fact at up_to; empty for telemetry"),
    Column("records", Number, nullable=False, comment="blocks or facts stored"),
    Column("duplicates", Number, nullable=False, comment="redeliveries that had no effect"),
    Column("first_ms", Number, nullable=False, comment="first arrival"),
    Column("last_ms", Number, nullable=False, comment="last arrival"),
    PrimaryKeyConstraint("gateway", "stream"),
    comment="one row for each gateway, lane and life of its store",
)

gap = Table(
    "gap",
    metadata,
    Column("gateway", Name, nullable=False),
    Column("stream", Number, nullable=False),
    Column("first", Number, nullable=False),
    Column("last", Number, nullable=False),
    PrimaryKeyConstraint("gateway", "stream", "first"),
    CheckConstraint("first <= last", name="ordered"),
    comment="closed ranges between up_to and top that nothing accounts for yet",
)

block = Table(
    "block",
    metadata,
    Column("arrival", RowId, primary_key=True, autoincrement=False, comment="from counter; the order of commits, what projections follow"),
    *_identity(),
    Column("device", Name, nullable=False),
    Column("profile", Name, nullable=False),
    Column("profile_version", Integer, nullable=False),
    Column("session", LargeBinary(16), nullable=False, comment="empty outside a session"),
    *_stamp(),
    Column("t0_ms", Number, nullable=False, comment="earliest sample"),
    Column("t1_ms", Number, nullable=False, comment="latest sample"),
    Column("rows", Integer, nullable=False),
    Column("source_boot", String(16), nullable=False, comment="the cooler's boot id in hex"),
    Column("counter_first", Number, comment="the cooler's own sample numbers, when it has them"),
    Column("counter_last", Number),
    Column("sha256", Hash, nullable=False, comment="of data"),
    Column("data", LargeBinary, nullable=False, comment="the whole frame as it arrived (protocol.frame)"),
    Column("received_ms", Number, nullable=False),
    UniqueConstraint("gateway", "stream", "seq"),
    Index(None, "device", "t1_ms"),
)

fact = Table(
    "fact",
    metadata,
    Column("arrival", RowId, primary_key=True, autoincrement=False, comment="from the same counter as block.arrival"),
    *_identity(),
    Column("lane", String(1), nullable=False),
    Column("kind", Word, nullable=False),
    Column("device", Name, nullable=False, comment="empty when the fact is about no cooler"),
    Column("session", LargeBinary(16), nullable=False),
    *_stamp(),
    Column("sha256", Hash, nullable=False, comment="of data"),
    Column("chain", Hash, nullable=False, comment="protocol.facts.fact_hash of the body: the next fact's previous"),
    Column("previous", Hash, nullable=False),
    Column("data", LargeBinary, nullable=False, comment="the whole frame as it arrived"),
    Column("received_ms", Number, nullable=False),
    UniqueConstraint("gateway", "stream", "seq"),
    Index(None, "device", "arrival"),
    Index(None, "session"),
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("gateway", Name, nullable=False),
    Column("stream", Number, nullable=False),
    Column("first", Number, nullable=False),
    Column("last", Number, nullable=False),
    Column("cause", Integer, nullable=False, comment="protocol.tombstone.Cause"),
    Column("rows", Number, nullable=False, comment="samples that were in the range, 0 when unknown"),
    Column("lane", String(1), nullable=False),
    Column("wall_ms", Number, nullable=False),
    Column("received_ms", Number, nullable=False),
    PrimaryKeyConstraint("gateway", "stream", "first", "last", "cause"),
)

conflict = Table(
    "conflict",
    metadata,
    *_identity(),
    Column("sha256", Hash, nullable=False),
    Column("lane", String(1), nullable=False),
    Column("kind", Word, nullable=False, comment="block, or the fact's kind"),
    Column("device", Name, nullable=False),
    Column("session", LargeBinary(16), nullable=False),
    *_stamp(),
    Column("data", LargeBinary, nullable=False),
    Column("received_ms", Number, nullable=False),
    PrimaryKeyConstraint("gateway", "stream", "seq", "sha256"),
    comment="a known identity with other bytes: two gateways, or one that was restored from a copy",
)

IMMUTABLE = ("block", "fact", "tombstone", "conflict", "console_audit")

parked = Table(
    "parked",
    metadata,
    *_identity(),
    Column("sha256", Hash, nullable=False),
    Column("lane", String(1), nullable=False),
    Column("version", Integer, nullable=False, comment="of the frame"),
    Column("reason", Word, nullable=False, comment="protocol.refusal.Reason"),
    Column("detail", String(200), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("received_ms", Number, nullable=False),
    PrimaryKeyConstraint("gateway", "stream", "seq", "sha256"),
    comment="intact frames that this version cannot read: accounted for, so the gateway forgets them; read again after an upgrade",
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("received_ms", Number, nullable=False),
    Column("last_ms", Number, nullable=False, comment="the same bytes came again"),
    Column("times", Integer, nullable=False),
    Column("topic", String(256), nullable=False, comment="cut at 256 characters"),
    Column("gateway", Name, nullable=False, comment="from the topic, empty when it names none"),
    Column("reason", Word, nullable=False),
    Column("detail", String(200), nullable=False),
    Column("size", Number, nullable=False),
    Column("sha256", Hash, nullable=False),
    Column("data", LargeBinary, comment="up to DEAD_LETTER_BYTES_MAX; null when the bytes lie in parked, or were shed"),
    Column("resolved_ms", Number, comment="a retry accepted it"),
    UniqueConstraint("sha256", "topic", "reason"),
    Index(None, "reason", "received_ms"),
)

last_value = Table(
    "last_value",
    metadata,
    Column("device", Name, nullable=False),
    Column("channel", Word, nullable=False),
    Column("ts_ms", Number, nullable=False, comment="of the value; 0 while none was ever valid"),
    Column("code", Number, comment="raw code; null for a live value and before the first valid sample"),
    Column("value_milli", Number, comment="thousandths of the channel's unit; null before the first valid sample"),
    Column("live", Boolean, nullable=False, comment="smoothed, from a live message; a block will follow"),
    Column("seen_ms", Number, nullable=False, comment="newest sample of any quality in a block"),
    Column("quality", Integer, nullable=False, comment="protocol.reading.Quality of the sample at seen_ms"),
    PrimaryKeyConstraint("device", "channel"),
)

device_seen = Table(
    "device_seen",
    metadata,
    Column("device", Name, primary_key=True),
    Column("gateway", Name, nullable=False, comment="that sent its newest sample"),
    Column("profile", Name, nullable=False),
    Column("profile_version", Integer, nullable=False),
    Column("first_ms", Number, nullable=False, comment="earliest sample"),
    Column("last_ms", Number, nullable=False, comment="latest sample"),
    Column("blocks", Number, nullable=False),
    Column("rows", Number, nullable=False),
)

gateway_status = Table(
    "gateway_status",
    metadata,
    Column("gateway", Name, primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("boot", String(16), nullable=False, comment="of the newest birth message, hex; empty before it"),
    Column("version", String(64), nullable=False),
    Column("changed_ms", Number, nullable=False, comment="when online last changed"),
    Column("last_ms", Number, nullable=False, comment="anything was heard"),
    Column("wall_ms", Number, nullable=False, comment="its clock in its newest record, 0 before the first"),
    Column("clock_quality", Integer, nullable=False),
)

consumer_session = Table(
    "consumer_session",
    metadata,
    Column("client_id", Name, primary_key=True),
    Column("first_ms", Number, nullable=False),
    Column("last_ms", Number, nullable=False, comment="last connection"),
    Column("lost", Integer, nullable=False, comment="times the broker had forgotten our session"),
)

event = Table(
    "event",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("key", String(200), nullable=False, unique=True, comment="the same thing is told once"),
    Column("at_ms", Number, nullable=False),
    Column("kind", Word, nullable=False),
    Column("severity", String(16), nullable=False, comment="info, warning or critical"),
    Column("gateway", Name, nullable=False),
    Column("device", Name, nullable=False),
    Column("detail", String(400), nullable=False, comment="short text from our own code with numbers in it; nothing a sender wrote"),
    Index(None, "at_ms"),
)

notification_outbox = Table(
    "notification_outbox",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("key", String(200), nullable=False, unique=True, comment="idempotency key: one notification for each event and recipient"),
    Column("event", RowId, nullable=False),
    Column("target", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False, comment="waiting, sent or failed"),
    Column("attempts", Integer, nullable=False),
    Column("next_ms", Number, nullable=False),
    Column("created_ms", Number, nullable=False),
    Index(None, "state", "next_ms"),
)

rollup_1m = Table(
    "rollup_1m",
    metadata,
    Column("device", Name, nullable=False),
    Column("channel", Word, nullable=False),
    Column("minute_ms", Number, nullable=False),
    Column("n", Integer, nullable=False, comment="valid samples"),
    Column("total", Number, nullable=False, comment="sum of their codes"),
    Column("lo", Number, comment="null while n is 0, like hi and last"),
    Column("hi", Number),
    Column("last", Number),
    Column("last_ms", Number, nullable=False, comment="time of last, 0 while n is 0"),
    Column("invalid", Integer, nullable=False),
    PrimaryKeyConstraint("device", "channel", "minute_ms"),
)

cursor = Table(
    "cursor",
    metadata,
    Column("name", Word, primary_key=True),
    Column("arrival", Number, nullable=False, comment="everything up to here is projected"),
    Column("updated_ms", Number, nullable=False),
)

projection_reject = Table(
    "projection_reject",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("projection", Word, nullable=False),
    Column("arrival", Number, nullable=False, comment="of the block; 0 when the line came from none"),
    Column("gateway", Name, nullable=False),
    Column("stream", Number, nullable=False),
    Column("seq", Number, nullable=False),
    Column("reason", Word, nullable=False),
    Column("detail", String(400), nullable=False, comment="what the server said"),
    Column("line", Text, nullable=False, comment="the refused line, cut at 4,096 characters"),
    Column("created_ms", Number, nullable=False),
    Column("resolved_ms", Number),
    Index(None, "projection", "arrival"),
)

console_user = Table(
    "console_user",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("name", Word, nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("site", Name, nullable=False, comment="the only site that a clinic account sees; empty for the others"),
    Column("password", String(200), nullable=False, comment="argon2id"),
    Column("active", Boolean, nullable=False),
    Column("created_ms", Number, nullable=False),
    Column("changed_ms", Number, nullable=False),
)

console_session = Table(
    "console_session",
    metadata,
    Column("id", Hash, primary_key=True, comment="SHA-256 of the cookie: a stolen table opens no session"),
    Column("user_id", RowId, nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_ms", Number, nullable=False),
    Column("seen_ms", Number, nullable=False),
    Column("expires_ms", Number, nullable=False),
    Index(None, "user_id"),
)

console_token = Table(
    "console_token",
    metadata,
    Column("id", Hash, primary_key=True, comment="SHA-256 of the token"),
    Column("user_id", RowId, nullable=False),
    Column("name", Word, nullable=False),
    Column("created_ms", Number, nullable=False),
    Column("expires_ms", Number, nullable=False),
    Column("used_ms", Number, nullable=False),
)

console_audit = Table(
    "console_audit",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("at_ms", Number, nullable=False),
    Column("actor", Word, nullable=False, comment="account name, empty before sign-in"),
    Column("action", Word, nullable=False),
    Column("target", String(200), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Index(None, "at_ms"),
)

console_brake = Table(
    "console_brake",
    metadata,
    Column("key", Hash, primary_key=True, comment="SHA-256 of what is counted: an account, an address, or both together"),
    Column("failures", Integer, nullable=False, comment="sign-ins that failed, less those taken back by a right password"),
    Column("last_ms", Number, nullable=False, comment="the newest of them"),
)
