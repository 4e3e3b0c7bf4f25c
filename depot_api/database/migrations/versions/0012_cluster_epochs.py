"""Cluster epochs: which of several servers that take writes is the one that counts.

Revision ID: 0012
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0012"
down_revision = "0010"


def upgrade() -> None:
    run_sql_file(__file__)
