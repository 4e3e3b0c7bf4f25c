"""Sessions end with the password that they were begun with, and tokens with the account.

Revision ID: 0030
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    run_sql_file(__file__)
