"""Merges: what they are planned from, their conflicts and how these were resolved, jobs with a lease.

Revision ID: 0010
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql_file(__file__)
