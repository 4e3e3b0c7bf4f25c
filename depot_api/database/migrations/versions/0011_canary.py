"""Canaries: rows by which a restore is seen to have reached a moment.

Revision ID: 0011
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_sql_file(__file__)
