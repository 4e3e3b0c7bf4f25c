"""Locks that hold: leases, fencing, breaking with a reason; typemap rules.

Revision ID: 0005
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql_file(__file__)
