"""The tables of what arrives and what follows from it, and the triggers that keep evidence as it is."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

EVIDENCE = ("block", "fact", "tombstone", "conflict")

REFUSE_SQLITE = """
create trigger {table}_{verb}_refused before {verb} on "{table}"
begin select raise(abort, 'rows of {table} are evidence and are never changed'); end
"""

REFUSE_FUNCTION = """
create function evidence_refused() returns trigger language plpgsql as
$$ begin raise exception 'rows of % are evidence and are never changed', tg_table_name; end $$
"""

REFUSE_POSTGRESQL = """
create trigger {table}_refused before update or delete or truncate on "{table}" for each statement execute function evidence_refused()
"""

RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _counter()
    _stream()
    _gap()
    _block()
    _fact()
    _tombstone()
    _conflict()
    _parked()
    _dead_letter()
    _last_value()
    _device_seen()
    _gateway_status()
    _consumer_session()
    _event()
    _notification_outbox()
    _rollup_1m()
    _cursor()
    _projection_reject()
    _refuse_changes()


def _counter() -> None:
    op.create_table(
        "counter",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counter"),
    )
    op.execute("insert into counter (name, value) values ('arrival', 0)")


def _stream() -> None:
    op.create_table(
        "stream",
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("lane", sa.String(length=1), nullable=False),
        sa.Column("up_to", sa.BigInteger(), nullable=False),
        sa.Column("top", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.String(length=64), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "stream", name="pk_stream"),
    )


def _gap() -> None:
    op.create_table(
        "gap",
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first <= last", name="ck_gap_ordered"),
        sa.PrimaryKeyConstraint("gateway", "stream", "first", name="pk_gap"),
    )


def _block() -> None:
    op.create_table(
        "block",
        sa.Column("arrival", RowId, autoincrement=False, nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        sa.Column("profile_version", sa.Integer(), nullable=False),
        sa.Column("session", sa.LargeBinary(length=16), nullable=False),
        sa.Column("boot", sa.String(length=16), nullable=False),
        sa.Column("monotonic_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock_quality", sa.Integer(), nullable=False),
        sa.Column("t0_ms", sa.BigInteger(), nullable=False),
        sa.Column("t1_ms", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("source_boot", sa.String(length=16), nullable=False),
        sa.Column("counter_first", sa.BigInteger(), nullable=True),
        sa.Column("counter_last", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("arrival", name="pk_block"),
        sa.UniqueConstraint("gateway", "stream", "seq", name="uq_block_gateway_stream_seq"),
    )
    op.create_index("ix_block_device_t1_ms", "block", ["device", "t1_ms"], unique=False)


def _fact() -> None:
    op.create_table(
        "fact",
        sa.Column("arrival", RowId, autoincrement=False, nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("lane", sa.String(length=1), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("session", sa.LargeBinary(length=16), nullable=False),
        sa.Column("boot", sa.String(length=16), nullable=False),
        sa.Column("monotonic_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock_quality", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("chain", sa.LargeBinary(length=32), nullable=False),
        sa.Column("previous", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("arrival", name="pk_fact"),
        sa.UniqueConstraint("gateway", "stream", "seq", name="uq_fact_gateway_stream_seq"),
    )
    op.create_index("ix_fact_device_arrival", "fact", ["device", "arrival"], unique=False)
    op.create_index("ix_fact_session", "fact", ["session"], unique=False)


def _tombstone() -> None:
    op.create_table(
        "tombstone",
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("lane", sa.String(length=1), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "stream", "first", "last", "cause", name="pk_tombstone"),
    )


def _conflict() -> None:
    op.create_table(
        "conflict",
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("lane", sa.String(length=1), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("session", sa.LargeBinary(length=16), nullable=False),
        sa.Column("boot", sa.String(length=16), nullable=False),
        sa.Column("monotonic_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock_quality", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "stream", "seq", "sha256", name="pk_conflict"),
    )


def _parked() -> None:
    op.create_table(
        "parked",
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("lane", sa.String(length=1), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(length=200), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "stream", "seq", "sha256", name="pk_parked"),
    )


def _dead_letter() -> None:
    op.create_table(
        "dead_letter",
        sa.Column("id", RowId, nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("topic", sa.String(length=256), nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(length=200), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("resolved_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letter"),
        sa.UniqueConstraint("sha256", "topic", "reason", name="uq_dead_letter_sha256_topic_reason"),
    )
    op.create_index("ix_dead_letter_reason_received_ms", "dead_letter", ["reason", "received_ms"], unique=False)


def _last_value() -> None:
    op.create_table(
        "last_value",
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("ts_ms", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.BigInteger(), nullable=True),
        sa.Column("value_milli", sa.BigInteger(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("device", "channel", name="pk_last_value"),
    )


def _device_seen() -> None:
    op.create_table(
        "device_seen",
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        sa.Column("profile_version", sa.Integer(), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("blocks", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", name="pk_device_seen"),
    )


def _gateway_status() -> None:
    op.create_table(
        "gateway_status",
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("boot", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock_quality", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", name="pk_gateway_status"),
    )


def _consumer_session() -> None:
    op.create_table(
        "consumer_session",
        sa.Column("client_id", sa.String(length=32), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="pk_consumer_session"),
    )


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", RowId, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.String(length=400), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sa.UniqueConstraint("key", name="uq_event_key"),
    )
    op.create_index("ix_event_at_ms", "event", ["at_ms"], unique=False)


def _notification_outbox() -> None:
    op.create_table(
        "notification_outbox",
        sa.Column("id", RowId, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("event", RowId, nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notification_outbox"),
        sa.UniqueConstraint("key", name="uq_notification_outbox_key"),
    )
    op.create_index("ix_notification_outbox_state_next_ms", "notification_outbox", ["state", "next_ms"], unique=False)


def _rollup_1m() -> None:
    op.create_table(
        "rollup_1m",
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("minute_ms", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("lo", sa.BigInteger(), nullable=True),
        sa.Column("hi", sa.BigInteger(), nullable=True),
        sa.Column("last", sa.BigInteger(), nullable=True),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("invalid", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("device", "channel", "minute_ms", name="pk_rollup_1m"),
    )


def _cursor() -> None:
    op.create_table(
        "cursor",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("arrival", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_cursor"),
    )


def _projection_reject() -> None:
    op.create_table(
        "projection_reject",
        sa.Column("id", RowId, nullable=False),
        sa.Column("projection", sa.String(length=64), nullable=False),
        sa.Column("arrival", sa.BigInteger(), nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(length=400), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("resolved_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_projection_reject"),
    )
    op.create_index("ix_projection_reject_projection_arrival", "projection_reject", ["projection", "arrival"], unique=False)


def _refuse_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in EVIDENCE:
            for verb in ("update", "delete"):
                op.execute(REFUSE_SQLITE.format(table=table, verb=verb))
        return
    op.execute(REFUSE_FUNCTION)
    for table in EVIDENCE:
        op.execute(REFUSE_POSTGRESQL.format(table=table))
