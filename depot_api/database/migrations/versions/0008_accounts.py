"""Users by admins, API tokens, archives, storage quotas and snapshots.

Revision ID: 0008
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_sql_file(__file__)
