"""A search for who changed what, and when, reads what it shows.

Revision ID: 0036
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    run_sql_file(__file__)
