"""A verdict is on what its reviewer saw, for the branch that it was given for.

Revision ID: 0023
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    run_sql_file(__file__)
