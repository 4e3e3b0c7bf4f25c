"""A sync that compares every path does it in pages: their edges lose nothing, and each is read through an index."""

import asyncio
import json
import random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from depot_api.patterns import any_as_regex
from depot_api.workspaces import queries
from depot_api.workspaces.queries import Comparison


async def all_pages(url: str, user_id: str, comparison: Comparison, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after: str | None = ""
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        await connection.execute("SELECT set_app_user(%s)", (user_id,))
        while after is not None:
            page = await queries.differences(connection, comparison, after, limit)
            lines = (page["lines"] or "").splitlines()
            assert page["rows"] == len(lines)
            rows += map(json.loads, lines)
            after = page["last_key"]
    return rows


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_pages_of_any_size_give_the_same(api, project, new_workspace, limit):
    rng = random.Random(limit)
    paths = [f"d{d}/x{n:02}" for d in range(3) for n in range(10)]
    content = project.put(b"x")
    project.submit([{"action": "add", "path": path, "sha256": content} for path in rng.sample(paths, 20)])
    work = new_workspace()
    work.sync()
    branch = project.http.post("/branches", json={"project_id": project.id, "name": "side", "parent_at": 0})
    side = branch.json()["id"]
    project.submit([{"action": "add", "path": path, "sha256": content} for path in rng.sample(paths, 15)], side)
    for path in rng.sample(sorted(project.heads(side)), 5):
        project.submit([{"action": "delete", "path": path, "base_version": project.heads(side)[path][0]}], side)
    project.http.patch(f"/workspaces/{work.id}", json={"branch_id": side, "exclude": ["*3"]})
    at, _ = work.plan()
    comparison = Comparison(UUID(work.id), UUID(side), at["at"], None, any_as_regex(["*3"]))
    me = project.http.get("/auth/me").json()["id"]
    work.apply(asyncio.run(all_pages(api.service_url, me, comparison, limit)))
    expected = {path: version for path, (version, _) in project.heads(side).items() if not path.endswith("3")}
    assert work.files == expected


def plan_nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node] + [found for child in node.get("Plans", []) for found in plan_nodes(child)]


@pytest.mark.parametrize(
    ("query", "index"),
    [(queries._ALL_COMPARED, "branch_heads_newest"), (queries._TOUCHED, "branch_heads_from_no")],
)
def test_only_what_is_asked_for_is_read(api, project, new_workspace, query, index):
    content = project.put(b"")
    project.submit([{"action": "add", "path": f"f{n:04}", "sha256": content} for n in range(3000)])
    work = new_workspace()
    work.sync()
    project.add("late", b"late")
    parameters = {
        "workspace_id": work.id,
        "branch_id": project.main,
        "at": 2,
        "after": "f1",
        "limit": 100,
        "low": 1,
        "high": 2,
    }
    with psycopg.connect(api.owner_url, autocommit=True) as owner:
        # As autovacuum soon does. The service is shared: its statistics may be of many small branches of other tests.
        owner.execute("ANALYZE branch_heads, workspace_files")
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, parameters).fetchone()
    nodes = [node for node in plan_nodes(row[0][0]["Plan"]) if "Index Name" in node]
    big = [node for node in nodes if node["Relation Name"] in ("branch_heads", "workspace_files")]
    assert index in {node["Index Name"] for node in big}
    assert all(node["Actual Rows"] <= 101 for node in big), big
    assert not [node for node in plan_nodes(row[0][0]["Plan"]) if node["Node Type"] == "Seq Scan"]
