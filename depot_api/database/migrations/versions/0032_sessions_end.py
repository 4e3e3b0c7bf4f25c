"""Sessions end with the password that they were begun with, and tokens with the account.

Revision ID: 0032
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    run_sql_file(__file__)
