"""Collection: content that nothing refers to is marked, and after a time of grace its bytes may go.

Revision ID: 0016
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_sql_file(__file__)
