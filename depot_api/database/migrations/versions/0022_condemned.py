"""Obliterations are condemned before their bytes go.

Revision ID: 0022
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0022"
down_revision = "0019"


def upgrade() -> None:
    run_sql_file(__file__)
