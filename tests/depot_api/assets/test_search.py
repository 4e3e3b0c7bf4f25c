"""Search: each filter, their combination, pages, the wall; and that its plans read what they show."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

ASSETS = 100_000
WALKED = 5000  # in path order, before an index is asked
ASSETS_SQL = """
    WITH made AS (
        INSERT INTO assets (project_id, path_key, path, asset_type, tags, metadata, last_version, created_by)
        SELECT %(project)s, p, p, CASE n %% 3 WHEN 0 THEN 'mesh' ELSE 'texture' END,
               CASE WHEN n %% 10000 = 0 THEN ARRAY['rare', 'all'] ELSE ARRAY['all'] END,
               jsonb_build_object('lod', n %% 7, 'serial', n), 1, created_by
        FROM projects, generate_series(1, %(count)s) n,
             LATERAL (SELECT format('content/d%%s/%%s_%%s.uasset', n %% 100, substr(md5(n::text), 1, 8), n)) AS made (p)
        WHERE id = %(project)s RETURNING id, path_key, path, created_by),
    versions AS (
        INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id, changelist_id,
                                    changelist_no, author_id, created_at)
        SELECT %(project)s, id, 1, %(sha256)s, 0, 'add', %(branch)s, %(changelist)s, 1, created_by, '2020-01-01'
        FROM made)
    INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256, size_bytes)
    SELECT %(project)s, %(branch)s, path_key, 1, path, id, 1, %(sha256)s, 0 FROM made
"""


def found(project, **query: Any) -> list[str]:
    response = project.http.get(f"/projects/{project.id}/search", params=query)
    assert response.status_code == 200, response.text
    return [asset["path"] for asset in response.json()["items"]]


def describe(project, path: str, **what: Any) -> str:
    asset = project.http.get("/assets", params={"project_id": project.id, "prefix": path}).json()["items"][0]
    assert project.http.patch(f"/assets/{asset['id']}", json=what).status_code == 200
    return asset["id"]


@pytest.fixture
def stocked(project):
    for path in ("Hero/Body.uasset", "Hero/hero_100%.png", "Level/hero_1000.png", "body/readme"):
        project.add(path, path.encode())
    describe(project, "Hero/Body.uasset", asset_type="mesh", tags=["main", "cast"], metadata={"lod": {"max": 3}})
    describe(project, "Level/hero_1000.png", asset_type="texture", tags=["main"], metadata={"lod": 1, "x": [1, 2]})
    return project


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["body/readme", "Hero/Body.uasset", "Hero/hero_100%.png", "Level/hero_1000.png"]),
        ({"prefix": "hERO/"}, ["Hero/Body.uasset", "Hero/hero_100%.png"]),
        ({"name": "BODY"}, ["Hero/Body.uasset"]),  # a name, not a directory
        ({"name": "100%"}, ["Hero/hero_100%.png"]),
        ({"name": "o_1"}, ["Hero/hero_100%.png", "Level/hero_1000.png"]),
        ({"name": "x_1"}, []),
        ({"type": "mesh"}, ["Hero/Body.uasset"]),
        ({"tag": "main"}, ["Hero/Body.uasset", "Level/hero_1000.png"]),
        ({"tag": ["main", "cast"]}, ["Hero/Body.uasset"]),
        ({"metadata": '{"lod": {"max": 3}}'}, ["Hero/Body.uasset"]),
        ({"metadata": '{"x": [2]}'}, ["Level/hero_1000.png"]),
        ({"tag": "main", "name": "hero", "type": "texture", "prefix": "l"}, ["Level/hero_1000.png"]),
        ({"tag": "main", "prefix": "body"}, []),
        ({"author": "ADMIN", "name": "read"}, ["body/readme"]),
        ({"author": "nobody-at-all"}, []),
        ({"deleted": True}, []),
    ],
    ids=str,
)
def test_filters(stocked, query, expected):
    assert found(stocked, **query) == expected


def test_changed_since_and_by_whom(stocked):
    writer = stocked.member("contributor")
    before = datetime.now(UTC)
    sha256 = stocked.put(b"new")
    writer.http.put(f"/projects/{stocked.id}/objects/{sha256}", content=b"new")
    edit = {"action": "edit", "path": "body/readme", "base_version": 1, "sha256": sha256}
    writer.http.post(f"/changelists/{stocked.open([edit], http=writer.http)}/submit")
    assert found(stocked, changed_since=before.isoformat()) == ["body/readme"]
    assert found(stocked, author=writer.name) == ["body/readme"]
    assert found(stocked, author="admin", changed_since=before.isoformat()) == []
    assert found(stocked, changed_since=(before + timedelta(days=1)).isoformat()) == []


def test_what_a_branch_shows(stocked):
    dev = stocked.http.post("/branches", json={"project_id": stocked.id, "name": "dev"}).json()["id"]
    stocked.submit([{"action": "delete", "path": "body/readme", "base_version": 1}])
    stocked.add("new/one", b"n", dev)
    assert found(stocked, deleted=True) == ["body/readme"]
    assert "body/readme" not in found(stocked)
    assert found(stocked, branch_id=dev, name="readme") == ["body/readme"]
    assert found(stocked, branch_id=dev, prefix="new") == ["new/one"]
    assert found(stocked, prefix="new") == []
    answer = stocked.http.get(f"/projects/{stocked.id}/search", params={"branch_id": dev, "prefix": "new"}).json()
    head = {name: answer["items"][0][name] for name in ("version", "sha256", "size_bytes", "changelist_no")}
    assert head == {"version": 1, "sha256": stocked.put(b"n"), "size_bytes": 1, "changelist_no": 6}


def test_pages_are_in_path_order(stocked):
    query, seen = {"limit": 1, "name": "hero"}, []
    while True:
        page = stocked.http.get(f"/projects/{stocked.id}/search", params=query).json()
        seen += [asset["path"] for asset in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ["Hero/hero_100%.png", "Level/hero_1000.png"]


@pytest.mark.parametrize(
    "query",
    [
        {"name": "ab"},
        {"name": "a\x00c"},
        {"tag": "\x00"},
        {"metadata": "[1]"},
        {"metadata": "{"},
        {"metadata": '{"a": NaN}'},
        {"metadata": '{"a": "\\u0000"}'},
        {"metadata": '{"a":' * 500 + "1" + "}" * 500},
        {"changed_since": "2020-01-01T00:00:00"},
        {"author": "\x00"},
        {"cursor": "x"},
        {"limit": 1001},
    ],
    ids=lambda query: str(query)[:40],
)
def test_what_makes_no_sense_is_refused(project, query):
    response = project.http.get(f"/projects/{project.id}/search", params=query)
    assert response.status_code == 422, response.text


@pytest.mark.parametrize(
    "query",
    [
        {"changed_since": "0001-01-01T00:00:00+14:00"},
        {"changed_since": "9999-12-31T23:59:59-14:00"},
        {"metadata": '{"a": ' + "9" * 300 + "}"},
        {"name": "\\\\%"},
        {"prefix": "\U0010ffff"},
    ],
    ids=lambda query: str(query)[:40],
)
def test_what_is_far_out_finds_nothing(project, query):
    assert found(project, **query) == []


def test_the_wall(api, stocked, new_project):
    stranger = api.user("editor")
    assert stranger.http.get(f"/projects/{stocked.id}/search").status_code == 404
    elsewhere = {"branch_id": stocked.main}
    assert stocked.http.get(f"/projects/{new_project().id}/search", params=elsewhere).status_code == 404
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (stranger.id,))
        assert connection.execute(SEARCH, parameters(stocked)).fetchall() == []


SEARCH = """SELECT path FROM search_assets(%(project)s, %(branch)s, %(prefix)s, %(name)s, %(type)s, %(tags)s,
    %(metadata)s, %(author)s, %(since)s, false, '', 100)"""


def parameters(project, **wanted: Any) -> dict[str, Any]:
    filters = dict.fromkeys(("prefix", "name", "type", "tags", "metadata", "author", "since"))
    return {"project": project.id, "branch": project.main, **filters, **wanted}


@pytest.fixture(scope="module")
def large(api, cluster, running_api_factory):
    """A project of 100,000 paths."""
    make_project, _ = running_api_factory
    project = make_project(api)
    sha256 = bytes.fromhex(project.put(b""))
    project.add("first", b"")
    with psycopg.connect(cluster.url(api.owner_url.rpartition("/")[2]), autocommit=True) as owner:
        owner.execute("SET session_replication_role = 'replica'")  # without triggers, which take half a minute
        row = owner.execute("SELECT id FROM changelists WHERE project_id = %s", (project.id,)).fetchone()
        assert row is not None
        of = {"project": project.id, "branch": project.main, "changelist": row[0], "sha256": sha256}
        owner.execute(ASSETS_SQL, {**of, "count": ASSETS})
        owner.execute("VACUUM ANALYZE assets, asset_versions, branch_heads")
    return project


@pytest.mark.parametrize(
    ("wanted", "index", "rows"),
    [
        ({}, "assets_project_id_path_key_key", 100),
        ({"prefix": "content/d7/"}, "assets_project_id_path_key_key", 100),
        ({"name": r"%\_77777.%"}, "assets_file_name", 1),
        ({"tags": ["rare"]}, "assets_tags", 10),
        ({"metadata": Jsonb({"serial": 4711})}, "assets_metadata", 1),
        ({"type": "mesh"}, "assets_type", 100),
        ({"type": "no-such-type"}, "assets_type", 0),
        ({"since": datetime(2021, 1, 1, tzinfo=UTC)}, "asset_versions_changed", 1),
        ({"tags": ["all"], "name": "%uasset%"}, "assets_project_id_path_key_key", 100),
        ({"name": r"%\_7777%"}, "assets_file_name", 11),
        ({"name": r"%\_7777%", "prefix": "content/d7", "type": "texture"}, "assets_type", 8),
    ],
    ids=str,
)
def test_a_search_reads_little_more_than_it_shows(api, cluster, large, wanted, index, rows):
    nodes, shown = explain_search(api, cluster, large, parameters(large, **wanted))
    assert len(shown) == rows
    assert index in {node.get("Index Name") for node in nodes}
    read = [node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes if "Relation Name" in node]
    assert max(read) <= (WALKED + 1 if wanted.keys() & {"name", "tags", "metadata", "since"} else 1000), nodes


@pytest.fixture
def busy_elsewhere(cluster, api):
    """Statistics as those of a table whose other projects change every day."""
    of = "'schemaname', 'public', 'relname', 'asset_versions', 'attname', 'created_at', 'inherited', false"
    dates = "'null_frac', 0::real, 'n_distinct', -1::real, 'histogram_bounds', '{2025-01-01, 2026-01-01}'::text"
    with psycopg.connect(cluster.url(api.owner_url.rpartition("/")[2]), autocommit=True) as owner:
        owner.execute("SELECT pg_clear_attribute_stats('public', 'asset_versions', 'created_at', false)")
        owner.execute(f"SELECT pg_restore_attribute_stats({of}, {dates})")
        yield
        owner.execute("ANALYZE asset_versions")


def test_what_was_changed_lately_in_a_quiet_project_is_found_beside_a_busy_one(api, cluster, large, busy_elsewhere):
    since = {"since": datetime(2021, 1, 1, tzinfo=UTC)}
    nodes, shown = explain_search(api, cluster, large, parameters(large, **since))
    assert shown == [("first",)]
    read = [node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes if "Relation Name" in node]
    assert max(read) <= WALKED + 1, nodes


def test_pages_go_on_from_the_window_to_the_index(api, large):
    with psycopg.connect(api.owner_url) as owner:
        keys = "SELECT path_key FROM assets WHERE project_id = %s AND path_key LIKE '%%\\_777%%' ORDER BY path_key"
        expected = [key for (key,) in owner.execute(keys, (large.id,))]
    query, seen = {"limit": 7, "name": "_777"}, []
    while query.get("cursor", "") is not None:
        page = large.http.get(f"/projects/{large.id}/search", params=query).json()
        seen += [asset["path"] for asset in page["items"]]
        query["cursor"] = page["next_cursor"]
    assert seen == expected
    assert len(seen) == 111


def explain_search(api, cluster, project, query: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """The nodes of the statements inside the function, which auto_explain tells, as the service would run it."""
    plans: list[str] = []
    database = api.owner_url.rsplit("/", 1)[1].partition("?")[0]
    with psycopg.connect(cluster.url(database)) as connection:
        connection.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
        connection.execute("LOAD 'auto_explain'")
        for setting in ("log_min_duration = 0", "log_analyze = on", "log_nested_statements = on", "log_format = json"):
            connection.execute(f"SET auto_explain.{setting}")
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET client_min_messages = log")
        connection.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        plans.clear()
        shown = connection.execute(SEARCH, query).fetchall()
    documents = [json.loads(re.sub(r"^.*?plan:\s*", "", plan, flags=re.DOTALL)) for plan in plans if "plan:" in plan]
    inner = [one["Plan"] for one in documents if re.match(r"SELECT a\.|WITH chosen", one["Query Text"])]
    return [node for plan in inner for node in flat(plan)], shown


def flat(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node] + [found for child in node.get("Plans", []) for found in flat(child)]
