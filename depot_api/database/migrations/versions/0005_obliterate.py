"""Obliterate: content of chosen versions goes, their history stays.

Revision ID: 0005
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql_file(__file__)
