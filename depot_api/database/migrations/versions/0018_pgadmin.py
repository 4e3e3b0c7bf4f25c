"""The role that people look with, through pgAdmin: everything but secrets, past row-level security, and no writes.

Revision ID: 0018
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    run_sql_file(__file__)
