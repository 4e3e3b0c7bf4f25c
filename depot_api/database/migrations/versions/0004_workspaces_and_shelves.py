"""Workspaces that know how far their have-list can be trusted, their activity, and shelves with moves.

Revision ID: 0004
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0004"
down_revision = "0001"


def upgrade() -> None:
    run_sql_file(__file__)
