"""Alembic's entry: one transaction for each migration, with limits that keep it from stalling the running service."""

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

# A migration that waits for a lock makes every request queue behind it: give up early and try again later.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "15min"


def run() -> None:
    url = context.config.attributes["owner_url"].replace("postgresql://", "postgresql+psycopg://", 1)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        # Two upgrades at once: the second waits for as long as it takes, then finds nothing to do.
        connection.execute(text("SELECT pg_advisory_lock(hashtext('asset-depot migrations'))"))
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.commit()
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


run()
