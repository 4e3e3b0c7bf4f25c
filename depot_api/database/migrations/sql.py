"""Runs the SQL file that lies beside a migration."""

from pathlib import Path

from alembic import op


def run_sql_file(migration_file: str) -> None:
    """Run `<migration>.sql` on the migration's own transaction."""
    statements = Path(migration_file).with_suffix(".sql").read_text(encoding="utf-8")
    # The driver's cursor, and no parameters: the file may then hold many statements and plain % signs.
    cursor = op.get_bind().connection.cursor()
    cursor.execute(statements)
    cursor.close()
