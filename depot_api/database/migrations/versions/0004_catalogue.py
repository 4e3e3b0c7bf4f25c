"""Search, branch history and protection, labels.

Revision ID: 0004
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql_file(__file__)
