"""Courses, minted tokens and the projection of sessions."""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

REFUSE_SQLITE = """
create trigger grant_log_{verb}_refused before {verb} on grant_log
begin select raise(abort, 'rows of grant_log are evidence and are never changed'); end
"""

# The function is that of the first migration.
REFUSE_POSTGRESQL = """
create trigger grant_log_refused before update or delete or truncate on grant_log for each statement execute function evidence_refused()
"""


def upgrade() -> None:
    """Make the tables and the triggers."""
    _course()
    _grants()
    _session()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(REFUSE_POSTGRESQL)
        return
    for verb in ("update", "delete"):
        op.execute(REFUSE_SQLITE.format(verb=verb))


def _course() -> None:
    op.create_table(
        "course",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("site", sa.String(length=32), nullable=False),
        sa.Column("enrolled_on", sa.String(length=10), nullable=False),
        sa.Column("price_book", sa.String(length=32), nullable=False),
        sa.Column("price_book_version", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_course"),
    )
    op.create_index("ix_course_site", "course", ["site"], unique=False)
    op.create_table(
        "course_mode",
        sa.Column("course", sa.String(length=64), nullable=False),
        sa.Column("from_day", sa.String(length=10), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("payer", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("course", "from_day", name="pk_course_mode"),
    )


def _grants() -> None:
    op.create_table(
        "grant_log",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("course", sa.String(length=64), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.String(length=64), nullable=False),
        sa.Column("approved_by", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_grant_log"),
    )
    op.create_table(
        "token",
        sa.Column("token", sa.LargeBinary(length=16), nullable=False),
        sa.Column("course", sa.String(length=64), nullable=False),
        sa.Column("site", sa.String(length=32), nullable=False),
        sa.Column("token_class", sa.String(length=16), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("spare", sa.Integer(), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("replaces", sa.LargeBinary(length=16), nullable=True),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_token"),
        sa.UniqueConstraint("replaces", name="uq_token_replaces"),
    )
    op.create_index("ix_token_course", "token", ["course"], unique=False)


def _session() -> None:
    op.create_table(
        "billing_session",
        sa.Column("session", sa.LargeBinary(length=16), nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("circuit", sa.Integer(), nullable=False),
        sa.Column("course", sa.String(length=64), nullable=False),
        sa.Column("token", sa.LargeBinary(length=16), nullable=False),
        sa.Column("use_index", sa.Integer(), nullable=False),
        sa.Column("token_class", sa.String(length=16), nullable=False),
        sa.Column("start", sa.String(length=16), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("service_day", sa.String(length=10), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=False),
        sa.Column("end_reason", sa.String(length=16), nullable=False),
        sa.Column("elapsed_ms", sa.BigInteger(), nullable=False),
        sa.Column("in_range_ms", sa.BigInteger(), nullable=False),
        sa.Column("post_in_range_ms", sa.BigInteger(), nullable=False),
        sa.Column("standing", sa.String(length=16), nullable=False),
        sa.Column("postings", sa.Integer(), nullable=False),
        sa.Column("continues", sa.LargeBinary(length=16), nullable=False),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("session", name="pk_billing_session"),
    )
    op.create_index("ix_billing_session_course", "billing_session", ["course"], unique=False)
    op.create_index("ix_billing_session_device_opened_ms", "billing_session", ["device", "opened_ms"], unique=False)
    op.create_index("ix_billing_session_continues", "billing_session", ["continues"], unique=False)
