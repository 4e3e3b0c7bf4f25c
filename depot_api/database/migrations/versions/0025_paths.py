"""Paths that one system or another cannot hold: long segments, a workspace's own directory, more device names.

Revision ID: 0025
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    run_sql_file(__file__)
