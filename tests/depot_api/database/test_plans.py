"""The plans of the hot queries, on tables that were never analyzed: the case that statistics cannot help."""

import json
from typing import Any

import psycopg
import pytest

from depot_api.branches.queries import _MANIFEST_PAGE
from depot_api.changelists.queries import _FILES_BELOW

PATHS = 5000


def plan_nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node] + [found for child in node.get("Plans", []) for found in plan_nodes(child)]


@pytest.fixture
def grown(project):
    content = project.put(b"")
    project.submit([{"action": "add", "path": f"d{n % 50}/f{n}", "sha256": content} for n in range(PATHS)])
    return project


def explain(api, project, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
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


def test_what_lies_below_a_new_path_is_one_index_range(api, grown):
    parameters = {"keys": [f"new/{n}" for n in range(500)], "branch": grown.main}
    nodes = explain(api, grown, _FILES_BELOW, parameters)
    heads = [node for node in nodes if node.get("Relation Name") == "branch_heads"]
    assert all(node["Index Name"] == "branch_heads_newest" and node["Actual Rows"] == 0 for node in heads)
    assert max(node["Actual Loops"] for node in heads) == 500
