"""An integrated version names one that is on its source; shelves keep from where their items come.

Revision ID: 0029
"""

from depot_api.database.migrations.sql import run_sql_file

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    run_sql_file(__file__)
