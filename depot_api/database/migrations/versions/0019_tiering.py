"""Content that may be away from the store's own disk.

Revision ID: 0019
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    run_sql_file(__file__)
