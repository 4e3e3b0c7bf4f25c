"""Permissions by path, for members below manager.

Revision ID: 0003
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql_file(__file__)
