"""A transaction is begun with the token itself: no question of its own for each request.

Revision ID: 0013
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_sql_file(__file__)
