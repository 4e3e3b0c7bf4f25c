"""Permissions by path hold for every write, and for what is told of a path.

Revision ID: 0021
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    run_sql_file(__file__)
