"""What monitoring asks the database at every scrape.

Revision ID: 0016
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_sql_file(__file__)
