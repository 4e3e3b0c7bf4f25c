"""A changelist by its number.

Revision ID: 0038
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    run_sql_file(__file__)
