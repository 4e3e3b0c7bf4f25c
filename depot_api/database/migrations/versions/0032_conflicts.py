"""A conflict is shown to whom all of its paths are; a file that one side deleted and the other moved is one.

Revision ID: 0032
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    run_sql_file(__file__)
