"""The plans of the hot queries, on tables that were never analyzed: the case that statistics cannot help."""

import json
from typing import Any

import psycopg
import pytest

from depot_api.branches.queries import _DIFF_PAGE, _MANIFEST_PAGE
from depot_api.changelists.queries import _FILES_BELOW, _NUMBERED, _PAGE

PATHS = 5000


def plan_nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node] + [found for child in node.get("Plans", []) for found in plan_nodes(child)]


@pytest.fixture(scope="module")
def grown(api, running_api_factory):
    """For tests that add no changelist."""
    make_project, _ = running_api_factory
    return grow(make_project(api))


def grow(project):
    content = project.put(b"")
    project.submit([{"action": "add", "path": f"d{n % 50}/f{n}", "sha256": content} for n in range(PATHS)])
    return project


def forget_statistics(api) -> None:
    """Of the tables asked here: autovacuum may have come by."""
    with psycopg.connect(api.owner_url) as owner:
        for table in ("branch_heads", "changelists"):
            owner.execute("SELECT pg_clear_relation_stats('public', %s::text)", (table,))
            owner.execute(
                "SELECT pg_clear_attribute_stats('public', attrelid::regclass::text, attname, false) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0",
                (table,),
            )


def explain(api, project, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    forget_statistics(api)
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, parameters).fetchone()
    document = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return plan_nodes(document[0]["Plan"])


def test_a_head_is_one_index_lookup(api, grown):
    query = "SELECT * FROM branch_head(%(branch)s, 'd7/f7')"
    nodes = explain(api, grown, query, {"branch": grown.main})
    heads = [node for node in nodes if node.get("Relation Name") == "branch_heads"]
    assert [node["Index Name"] for node in heads] == ["branch_heads_newest"]
    assert heads[0]["Actual Rows"] <= 1


def test_a_manifest_page_reads_a_page(api, grown):
    parameters = {"branch_id": grown.main, "at": 10, "after": "d30/", "limit": 100}
    nodes = explain(api, grown, _MANIFEST_PAGE, parameters)
    heads = [node for node in nodes if node.get("Relation Name") == "branch_heads"]
    assert [(node["Node Type"], node["Index Name"]) for node in heads] == [("Index Scan", "branch_heads_newest")]
    assert heads[0]["Actual Rows"] <= 101


def test_the_plan_that_is_kept_for_manifest_pages_reads_a_page(api, grown):
    forget_statistics(api)
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute("SELECT set_app_user(%s)", (grown.http.get("/auth/me").json()["id"],))
        numbered = {name: f"${place}" for place, name in enumerate(("branch_id", "at", "after", "limit"), 1)}
        connection.execute("PREPARE page AS " + _MANIFEST_PAGE % numbered)
        kept = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page('{grown.main}', 10, 'd30/', 100)"
        plan = connection.execute(kept).fetchone()[0][0]["Plan"]
    heads = [node for node in plan_nodes(plan) if node.get("Relation Name") == "branch_heads"]
    assert [(node["Node Type"], node["Index Name"]) for node in heads] == [("Index Scan", "branch_heads_newest")]
    assert heads[0]["Actual Rows"] <= 101


def test_a_diff_reads_what_was_touched_since_the_branches_parted(api, project):
    grown = grow(project)
    made = grown.http.post("/branches", json={"project_id": grown.id, "name": "dev"}).json()
    content = grown.put(b"changed")
    for branch, first in ((made["id"], 0), (grown.main, 50)):
        edits = [f"d{n % 50}/f{n}" for n in range(first, first + 100)]
        grown.submit([{"action": "edit", "path": p, "base_version": 1, "sha256": content} for p in edits], branch)
    points = {"left": grown.main, "left_at": 3, "right": made["id"], "right_at": 2}
    nodes = explain(api, grown, _DIFF_PAGE, {**points, "after": "", "limit": 1000})
    heads = [node for node in nodes if node.get("Relation Name") == "branch_heads"]
    assert {node["Index Name"] for node in heads} == {"branch_heads_from_no", "branch_heads_newest"}
    assert nodes[0]["Actual Rows"] == 150
    read = sum(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in heads)
    assert read <= 1000


def test_looking_below_new_paths_reads_only_what_is_there(api, grown):
    keys = [f"d{n % 50}/new{n}" for n in range(500)] + ["d7"]
    nodes = explain(api, grown, _FILES_BELOW, {"branch": grown.main, "keys": keys})
    heads = [node for node in nodes if node.get("Relation Name") == "branch_heads"]
    assert nodes[0]["Actual Rows"] == PATHS / 50
    read = sum(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in heads)
    assert read <= PATHS


@pytest.mark.parametrize("number", [57, None])
def test_a_changelist_and_a_page_of_them_are_read_by_their_own_index(api, project, number):
    """At each size: what two indexes cost that begin alike turns on which of them has just grown a level."""
    filters = dict.fromkeys(("branch_id", "status", "author_id", "before"))
    project.add("first", b"")
    for n in range(1, 13):
        add_changelists(api, project, 50, n)
        query, index = (_NUMBERED, "changelists_number") if number else (_PAGE, "changelists_project")
        nodes = explain(api, project, query, {**filters, "project_id": project.id, "number": number, "limit": 5})
        found = [node for node in nodes if node.get("Relation Name") == "changelists"]
        assert [(node["Index Name"], node["Actual Rows"]) for node in found] == [(index, 1 if number else 5)]
        assert found[0].get("Rows Removed by Filter", 0) == 0


def add_changelists(api, project, count: int, batch: int) -> None:
    with psycopg.connect(api.owner_url) as owner:
        owner.execute(
            """INSERT INTO changelists (project_id, branch_id, author_id, status, number, submitted_at, items_count)
               SELECT project_id, branch_id, author_id, status, %(batch)s * %(count)s + n, submitted_at, items_count
               FROM changelists, generate_series(1, %(count)s) n WHERE project_id = %(project)s AND number = 1""",
            {"project": project.id, "count": count, "batch": batch},
        )


def test_whose_projects_they_are_is_asked_once_a_statement(api, grown, cluster):
    content = grown.put(b"new")
    opened = grown.open([{"action": "add", "path": f"new/{n}", "sha256": content} for n in range(1000)])
    large = ("changelist_items", "branch_heads", "asset_versions", "assets")
    database = api.owner_url.rpartition("/")[2].partition("?")[0]
    with psycopg.connect(cluster.url(database)) as connection:
        connection.execute("SET track_functions = 'all'")
        connection.execute("SET SESSION AUTHORIZATION depot_service")
        connection.execute("SELECT set_app_user(%s)", (grown.http.get("/auth/me").json()["id"],))
        for asked in [f"SELECT count_items('{opened}')", *(f"SELECT count(*) FROM {table}" for table in large)]:
            before = calls_of(connection, "my_projects")
            assert connection.execute(asked).fetchone()[0] >= 1000
            assert 1 <= calls_of(connection, "my_projects") - before <= 3, asked


def calls_of(connection: psycopg.Connection, function: str) -> int:
    """How often this transaction has called it."""
    asked = "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_xact_user_functions WHERE funcname = %s"
    return connection.execute(asked, (function,)).fetchone()[0]
