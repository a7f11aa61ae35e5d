"""Alembic's entry point: always on a connection that ``ingest.store`` opened, inside its transaction. Not for its own command line."""

from alembic import context
from sqlalchemy import Connection

from ingest.billing import tables as _billing  # noqa: F401  (registers the ledger's tables)
from ingest.schema import metadata
from provisioning.registry import metadata as registry

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=[metadata, registry], compare_type=True, transactional_ddl=False)
context.run_migrations()
