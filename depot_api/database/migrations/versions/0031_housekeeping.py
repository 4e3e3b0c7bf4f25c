"""What is done every hour: storage use is noted, and idempotency keys that are old go.

Revision ID: 0031
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    run_sql_file(__file__)
