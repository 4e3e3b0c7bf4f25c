"""Obliterations are condemned before their bytes go.

Revision ID: 0027
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    run_sql_file(__file__)
