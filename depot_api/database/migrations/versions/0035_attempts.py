"""An office shares one address: fifty failures of an address are free, and are forgiven with time.

Revision ID: 0035
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    run_sql_file(__file__)
