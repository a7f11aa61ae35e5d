"""Tables of billing: the ledger, courses, minted tokens, and the projection of sessions. Not the rules (``ledger``, ``books``, …).

Invariant: rows of ``IMMUTABLE`` are never changed or deleted: triggers in both engines refuse (rule L2). ``billing_session`` is a
projection of facts and can be rebuilt.
"""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, LargeBinary, PrimaryKeyConstraint, String, Table

from ingest.schema import metadata

__all__ = [
    "IMMUTABLE",
    "billing_session",
    "course",
    "course_mode",
    "denied",
    "document_held",
    "grant_log",
    "ledger_account",
    "ledger_chain",
    "ledger_entry",
    "ledger_transaction",
    "refund",
    "token",
]

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

course = Table(
    "course",
    metadata,
    Column("id", String(64), primary_key=True, comment="a pseudonym; names live only in the identity vault"),
    Column("site", String(32), nullable=False),
    Column("enrolled_on", String(10), nullable=False, comment="local day at the site, ISO"),
    Column("price_book", String(32), nullable=False),
    Column("price_book_version", Integer, nullable=False, comment="pinned at enrolment: a later list changes nothing (P17)"),
    Column("currency", String(3), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Index(None, "site"),
)

course_mode = Table(
    "course_mode",
    metadata,
    Column("course", String(64), nullable=False),
    Column("from_day", String(10), nullable=False, comment="service days from here on, until the next row"),
    Column("mode", String(16), nullable=False),
    Column("payer", String(64), nullable=False),
    PrimaryKeyConstraint("course", "from_day"),
    comment="who pays, with dates (A3)",
)

grant_log = Table(
    "grant_log",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("course", String(64), nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("requested_by", String(64), nullable=False),
    Column("approved_by", String(64), nullable=False, comment="empty below the limit that needs two"),
    Column("at_ms", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False, comment="SHA-256 over the tokens' keyed hashes"),
    Column("hash", LargeBinary(32), nullable=False, comment="chain over all batches"),
)

token = Table(
    "token",
    metadata,
    Column("token", LargeBinary(16), primary_key=True, comment="keyed hash: what facts carry"),
    Column("course", String(64), nullable=False),
    Column("site", String(32), nullable=False),
    Column("token_class", String(16), nullable=False),
    Column("uses", Integer, nullable=False, comment="paid and spare together"),
    Column("spare", Integer, nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("replaces", LargeBinary(16), unique=True, comment="the lost token whose unspent uses this one carries (A8)"),
    Column("issued_ms", BigInteger, nullable=False),
    Index(None, "course"),
)

billing_session = Table(
    "billing_session",
    metadata,
    Column("session", LargeBinary(16), primary_key=True),
    Column("gateway", String(32), nullable=False),
    Column("device", String(32), nullable=False),
    Column("circuit", Integer, nullable=False),
    Column("course", String(64), nullable=False, comment="empty while unknown: an orphan"),
    Column("token", LargeBinary(16), nullable=False, comment="empty when nothing paid yet"),
    Column("use_index", Integer, nullable=False),
    Column("token_class", String(16), nullable=False),
    Column("start", String(16), nullable=False),
    Column("opened_ms", BigInteger, nullable=False, comment="the gateway's wall clock"),
    Column("service_day", String(10), nullable=False, comment="local day at the site, ISO (K1)"),
    Column("phase", String(16), nullable=False),
    Column("step", String(16), nullable=False, comment="session.Commit"),
    Column("end_reason", String(16), nullable=False),
    Column("elapsed_ms", BigInteger, nullable=False),
    Column("in_range_ms", BigInteger, nullable=False),
    Column("post_in_range_ms", BigInteger, nullable=False),
    Column("standing", String(16), nullable=False, comment="reserved, funded, unfunded, free, released, held, orphan"),
    Column("postings", Integer, nullable=False, comment="how often its standing was posted: part of the next key"),
    Column("continues", LargeBinary(16), nullable=False, comment="the session that goes on here after a machine swap (S5), or empty"),
    Column("agrees", Boolean, nullable=False, comment="false: the gateway's own summary differs from the replay"),
    Index(None, "continues"),
    Index(None, "course"),
    Index(None, "device", "opened_ms"),
)

denied = Table(
    "denied",
    metadata,
    Column("token", LargeBinary(16), primary_key=True, comment="keyed hash"),
    Column("site", String(32), nullable=False),
    Column("version", BigInteger, nullable=False, comment="of the site's denylist; rises by one an entry"),
    Column("reason", String(32), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "site", "version", unique=True),
)

document_held = Table(
    "document_held",
    metadata,
    Column("gateway", String(32), nullable=False),
    Column("document", String(64), nullable=False),
    Column("version", BigInteger, nullable=False, comment="the newest that the gateway said it applied"),
    Column("at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("gateway", "document"),
)

refund = Table(
    "refund",
    metadata,
    Column("token", LargeBinary(16), primary_key=True),
    Column("course", String(64), nullable=False),
    Column("site", String(32), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("version", BigInteger, nullable=False, comment="of the denylist that every gateway must hold first (T9)"),
    Column("state", String(16), nullable=False, comment="pending, done, cancelled"),
    Column("spent_before", Integer, nullable=False, comment="sessions of the token known when the refund was asked for"),
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "site", "state"),
)

IMMUTABLE = (ledger_transaction, ledger_entry, grant_log)
