"""Sign-ins are counted before they are looked at; what is kept of requests is forgotten in the end.

Revision ID: 0026
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    run_sql_file(__file__)
