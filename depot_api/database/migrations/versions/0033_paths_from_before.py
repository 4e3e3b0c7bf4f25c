"""A path that is there can go, whatever rules came since.

Revision ID: 0033
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    run_sql_file(__file__)
