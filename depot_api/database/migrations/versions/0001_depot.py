"""The whole model of the depot.

Revision ID: 0001
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql_file(__file__)
