"""What is done every hour: storage use is noted, and idempotency keys that are old go.

Revision ID: 0033
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    run_sql_file(__file__)
