"""An audit row for what changes by the thousand, too: one for each statement.

Revision ID: 0024
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    run_sql_file(__file__)
