"""What a submit asks about locks grows with its items, not with the project's locks, whatever statistics say."""

import json
from collections.abc import Callable, Iterator

import psycopg
import pytest

from depot_api.locks.queries import _FOREIGN_LOCKS, _RELEASE_SUBMITTED, _STALE_BASES

ITEMS = 100
LOCKS = 1000


def nodes(node: dict) -> list[dict]:
    return [node] + [found for child in node.get("Plans", []) for found in nodes(child)]


@pytest.fixture
def explain(api, project):
    """Nodes of the plan that ran, on rows of the table: each with how many rows it looked at."""

    def run(query: str, parameters: object, table: str) -> list[tuple[str, float]]:
        with psycopg.connect(api.service_url) as connection:
            connection.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
            row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, parameters).fetchone()
            connection.rollback()
        document = row[0] if isinstance(row[0], list) else json.loads(row[0])
        return [
            (node["Index Name"], (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
            for node in nodes(document[0]["Plan"])
            if node.get("Relation Name") == table and node["Node Type"] != "ModifyTable" and node["Actual Loops"]
        ]

    return run


@pytest.fixture
def crowd(project, artist):
    """Makes a changelist of ITEMS items in a project with LOCKS locks, of its author or of someone else."""

    def make(own: bool) -> str:
        content = project.put(b"x")
        paths = [f"Content/{n:04}" for n in range(LOCKS)]
        project.submit([{"action": "add", "path": path, "sha256": content} for path in paths])
        items = [{"path": path, "base_version": 1} for path in paths]
        body = {"project_id": project.id, "branch_id": project.main, "items": items}
        holder = project.http if own else artist().http
        assert holder.post("/locks/batch", json=body).status_code == 201
        edited = project.put(b"y")
        edits = [{"action": "edit", "path": path, "base_version": 1, "sha256": edited} for path in paths[:ITEMS]]
        return project.open(edits)

    return make


@pytest.mark.parametrize(
    ("query", "own"), [(_FOREIGN_LOCKS, False), (_RELEASE_SUBMITTED, True)], ids=["see", "release"]
)
def test_locks_are_looked_up_for_each_item(project, crowd, explain, query, own) -> None:
    changelist = crowd(own)
    parameters = {"project_id": project.id, "changelist_id": changelist}
    looked_at = [row for table in ("locks", "changelist_items") for row in explain(query, parameters, table)]
    assert 2 * ITEMS <= sum(rows for _, rows in looked_at) <= 3 * ITEMS, looked_at


@pytest.fixture
def tell_the_planner(api) -> Iterator[Callable[[int], None]]:
    """A lie, how many rows there are."""
    told = """SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', 'branch_heads', 'relpages', 1000,
                                               'reltuples', %s::real)"""
    with psycopg.connect(api.owner_url, autocommit=True) as owner:
        yield lambda rows: owner.execute(told, (rows,))
        owner.execute("SELECT pg_clear_relation_stats('public', 'branch_heads')")


@pytest.mark.parametrize("rows", [None, 1, 1_000_000_000])
def test_a_base_is_one_lookup_when_it_is_the_newest_of_all(
    project, crowd, branch, explain, tell_the_planner, rows
) -> None:
    crowd(own=True)
    if rows is not None:
        tell_the_planner(rows)
    for n in range(5):
        branch(f"b{n}")
    paths = [f"content/{n:04}" for n in range(ITEMS)]
    parameters = {
        "project_id": project.id,
        "branch_id": project.main,
        "path_keys": paths,
        "paths": paths,
        "bases": [1] * ITEMS,
        "project_wide": [True] * ITEMS,
    }
    assert explain(_STALE_BASES, parameters, "branch_heads") == [("branch_heads_newest", ITEMS)]
