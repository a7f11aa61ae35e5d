"""Tables of the ledger. Not the rules (``ledger``, ``books``).

Invariant: rows of ``ledger_transaction`` and ``ledger_entry`` are never changed or deleted: triggers in both engines refuse (rule L2).
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, PrimaryKeyConstraint, String, Table

from ingest.schema import metadata

__all__ = ["IMMUTABLE", "ledger_account", "ledger_chain", "ledger_entry", "ledger_transaction"]

ledger_chain = Table(
    "ledger_chain",
    metadata,
    Column("scope", String(32), primary_key=True, comment="a gateway, or hub: one chain each, so that writers do not queue on one row"),
    Column("number", BigInteger, nullable=False),
    Column("head", LargeBinary(32), nullable=False),
)

ledger_transaction = Table(
    "ledger_transaction",
    metadata,
    Column("scope", String(32), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("key", String(160), nullable=False, unique=True, comment="made where the fact arises; remembered for ever (L1)"),
    Column("kind", String(32), nullable=False),
    Column("at_ms", BigInteger, nullable=False, comment="when it happened"),
    Column("posted_ms", BigInteger, nullable=False, comment="when it was written"),
    Column("reason", String(64), nullable=False),
    Column("reverses", String(160), comment="key of the transaction that this one takes back", unique=True),
    Column("hash", LargeBinary(32), nullable=False),
    PrimaryKeyConstraint("scope", "number"),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("scope", String(32), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("line", Integer, nullable=False),
    Column("account", String(120), nullable=False),
    Column("commodity", String(3), nullable=False, comment="USE, or an ISO 4217 currency"),
    Column("amount", BigInteger, nullable=False, comment="uses, or minor units; positive: the account gains"),
    PrimaryKeyConstraint("scope", "number", "line"),
    CheckConstraint("amount <> 0", name="moves"),
    Index(None, "account", "commodity"),
)

ledger_account = Table(
    "ledger_account",
    metadata,
    Column("account", String(120), primary_key=True),
    Column("opened_ms", BigInteger, nullable=False),
)

IMMUTABLE = (ledger_transaction, ledger_entry)
