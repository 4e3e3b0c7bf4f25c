"""Changelists in full: validations by pipelines, reviews that the branch asks for, comments, integrations.

Revision ID: 0007
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0007"
down_revision = "0002"


def upgrade() -> None:
    run_sql_file(__file__)
