"""Locks that hold: leases, fencing, breaking with a reason; typemap rules.

Revision ID: 0009
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql_file(__file__)
