"""The outbox's readers: refs manifests and webhooks.

Revision ID: 0006
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_sql_file(__file__)
