"""The ledger's tables, and the triggers that keep what is written."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

KEPT = ("ledger_transaction", "ledger_entry")

REFUSE_SQLITE = """
create trigger {table}_{verb}_refused before {verb} on {table}
begin select raise(abort, 'rows of {table} are evidence and are never changed'); end
"""

# The function is that of the first migration.
REFUSE_POSTGRESQL = """
create trigger {table}_refused before update or delete or truncate on {table} for each statement execute function evidence_refused()
"""


def upgrade() -> None:
    """Make the tables and the triggers."""
    _tables()
    postgresql = op.get_bind().dialect.name == "postgresql"
    for table in KEPT:
        if postgresql:
            op.execute(REFUSE_POSTGRESQL.format(table=table))
        else:
            for verb in ("update", "delete"):
                op.execute(REFUSE_SQLITE.format(table=table, verb=verb))


def _tables() -> None:
    op.create_table(
        "ledger_chain",
        sa.Column("scope", sa.String(length=32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_ledger_chain"),
    )
    op.create_table(
        "ledger_transaction",
        sa.Column("scope", sa.String(length=32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("posted_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("reverses", sa.String(length=160), nullable=True),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("scope", "number", name="pk_ledger_transaction"),
        sa.UniqueConstraint("key", name="uq_ledger_transaction_key"),
        sa.UniqueConstraint("reverses", name="uq_ledger_transaction_reverses"),
    )
    op.create_table(
        "ledger_entry",
        sa.Column("scope", sa.String(length=32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("account", sa.String(length=120), nullable=False),
        sa.Column("commodity", sa.String(length=3), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount <> 0", name="ck_ledger_entry_moves"),
        sa.PrimaryKeyConstraint("scope", "number", "line", name="pk_ledger_entry"),
    )
    op.create_index("ix_ledger_entry_account_commodity", "ledger_entry", ["account", "commodity"], unique=False)
    op.create_table(
        "ledger_account",
        sa.Column("account", sa.String(length=120), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", name="pk_ledger_account"),
    )
