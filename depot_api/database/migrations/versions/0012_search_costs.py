"""Searches by a rare tag take its index.

Revision ID: 0012
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_sql_file(__file__)
