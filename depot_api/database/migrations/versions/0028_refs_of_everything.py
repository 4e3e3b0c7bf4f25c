"""Refs that say all that a rebuilt catalogue needs: who may do what, what was merged, what was obliterated.

Revision ID: 0028
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    run_sql_file(__file__)
