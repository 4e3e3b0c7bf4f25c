"""Searches for what few assets have take its index, and what many have is found in path order.

Revision ID: 0015
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_sql_file(__file__)
