"""A workspace is compared anew when what its owner may read has changed.

Revision ID: 0022
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    run_sql_file(__file__)
