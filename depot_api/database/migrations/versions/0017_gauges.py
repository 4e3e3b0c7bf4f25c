"""What monitoring asks the database at every scrape.

Revision ID: 0017
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    run_sql_file(__file__)
