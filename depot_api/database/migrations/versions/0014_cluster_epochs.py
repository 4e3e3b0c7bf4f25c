"""Cluster epochs: which of several servers that take writes is the one that counts.

Revision ID: 0014
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql_file(__file__)
