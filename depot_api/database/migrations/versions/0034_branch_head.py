"""The head of a path is one lookup, whatever statistics say.

Revision ID: 0034
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    run_sql_file(__file__)
