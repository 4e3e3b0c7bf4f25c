"""Workspaces that know how far their have-list can be trusted, their activity, and shelves with moves.

Revision ID: 0007
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql_file(__file__)
