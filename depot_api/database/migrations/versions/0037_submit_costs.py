"""What a row of a submit costs.

Revision ID: 0037
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    run_sql_file(__file__)
