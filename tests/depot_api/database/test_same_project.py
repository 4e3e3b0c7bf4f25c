"""A row's changelist and branch are of its project: the database says so, whoever writes."""

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.depot_api.conftest import make_project

COPY = """INSERT INTO {table} SELECT (jsonb_populate_record(r, %(changed)s)).* FROM {table} r
          WHERE r.project_id = %(project)s RETURNING 1"""


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("changelist_items", "changelist_id"),
        ("asset_versions", "changelist_id"),
        ("asset_versions", "branch_id"),
        ("branch_heads", "branch_id"),
    ],
)
def test_what_a_row_names_is_of_its_project(api, project, table, column) -> None:
    project.add("a", b"content")
    other = make_project(api)
    foreign = {"changelist_id": other.open([]), "branch_id": other.main}
    query = sql.SQL(COPY).format(table=sql.Identifier(table))
    # Another key, so that nothing but what it names is wrong.
    changed = {"path_key": "b", "number": 2, "from_no": 9, column: foreign[column]}
    given = {"changed": Jsonb(changed), "project": project.id}
    with psycopg.connect(api.owner_url) as owner, pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
        owner.execute(query, given)
    assert refused.value.diag.constraint_name == f"{table}_project_id_{column}_fkey"
