"""Users by admins, API tokens, archives, storage quotas and snapshots.

Revision ID: 0002
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql_file(__file__)
