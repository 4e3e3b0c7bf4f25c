"""Sign-ins are counted before they are looked at; what is kept of requests is forgotten in the end.

Revision ID: 0021
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    run_sql_file(__file__)
