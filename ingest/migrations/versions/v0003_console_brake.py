"""The console's brake on password guessing, and triggers that keep its audit trail as it was written."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

REFUSE_SQLITE = """
create trigger console_audit_{verb}_refused before {verb} on console_audit
begin select raise(abort, 'the audit trail is evidence and is never changed'); end
"""

# The function is that of the first migration.
REFUSE_POSTGRESQL = """
create trigger console_audit_refused before update or delete or truncate on console_audit
for each statement execute function evidence_refused()
"""


def upgrade() -> None:
    """Make the table and the triggers."""
    op.create_table(
        "console_brake",
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_console_brake"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(REFUSE_POSTGRESQL)
        return
    for verb in ("update", "delete"):
        op.execute(REFUSE_SQLITE.format(verb=verb))
