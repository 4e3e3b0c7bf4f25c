"""Sync: the answer is the difference and nothing else, however the workspace came to where it is."""

import random

import httpx
import psycopg
import pytest

from depot_api.patterns import matches


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


def actions(rows):
    return [(row["action"], row["path"], row["version"]) for row in rows]


def test_fetch_replace_remove(project, new_workspace):
    one, two = project.put(b"one"), project.put(b"two!")
    project.submit([{"action": "add", "path": path, "sha256": one} for path in ("a", "b", "c")])
    work = new_workspace()
    plan, rows = work.sync()
    assert (plan["at"], plan["branch_id"]) == (1, project.main)
    assert actions(rows) == [("fetch", "a", 1), ("fetch", "b", 1), ("fetch", "c", 1)]
    assert (rows[0]["sha256"], rows[0]["size_bytes"], rows[0]["have_version"]) == (one, 3, None)
    project.submit(
        [
            {"action": "edit", "path": "a", "base_version": 1, "sha256": two},
            {"action": "delete", "path": "b", "base_version": 1},
            {"action": "add", "path": "d", "sha256": two},
        ]
    )
    plan, rows = work.sync()
    assert plan["is_sparse"]
    assert actions(rows) == [("replace", "a", 2), ("remove", "b", None), ("fetch", "d", 1)]
    assert [row["have_version"] for row in rows] == [1, 1, None]
    assert (rows[1]["sha256"], rows[1]["size_bytes"]) == (None, None)
    assert work.have() == {"a": 2, "c": 1, "d": 1}
    assert work.sync()[1] == []
    assert actions(work.sync(at=1)[1]) == [("replace", "a", 1), ("fetch", "b", 1), ("remove", "d", None)]
    assert actions(work.sync(at=0)[1]) == [("remove", "a", None), ("remove", "b", None), ("remove", "c", None)]


def test_patterns_decide_what_comes_and_what_goes(project, new_workspace):
    paths = ("Content/Audio/a.wav", "Content/Hero/hero.psd", "Content/Hero/hero.uasset", "readme")
    project.submit([{"action": "add", "path": path, "sha256": project.put(b"x")} for path in paths])
    work = new_workspace(include=["content/**"], exclude=["*.PSD"])
    assert actions(work.sync()[1]) == [("fetch", paths[0], 1), ("fetch", paths[2], 1)]
    project.http.patch(f"/workspaces/{work.id}", json={"include": ["readme", "**/Hero/*"]})
    plan, rows = work.sync()
    assert not plan["is_sparse"]
    assert actions(rows) == [("remove", paths[0], None), ("fetch", "readme", 1)]
    project.add("Content/Audio/b.wav", b"b")
    assert work.sync()[1] == []


def test_switching_transfers_what_differs(project, new_workspace):
    project.submit([{"action": "add", "path": path, "sha256": project.put(b"x")} for path in ("a", "b", "c")])
    branch = project.http.post("/branches", json={"project_id": project.id, "name": "other"}).json()["id"]
    edit = {"action": "edit", "path": "b", "base_version": 1, "sha256": project.put(b"y")}
    project.submit([edit, {"action": "add", "path": "d", "sha256": project.put(b"y")}], branch)
    project.submit([{"action": "delete", "path": "c", "base_version": 1}])
    work = new_workspace()
    work.sync()
    project.http.patch(f"/workspaces/{work.id}", json={"branch_id": branch})
    assert actions(work.sync()[1]) == [("replace", "b", 2), ("fetch", "c", 1), ("fetch", "d", 1)]
    project.http.patch(f"/workspaces/{work.id}", json={"branch_id": project.main})
    assert actions(work.sync()[1]) == [("replace", "b", 1), ("remove", "c", None), ("remove", "d", None)]


def test_a_label_is_a_point(api, project, new_workspace):
    project.add("a", b"1")
    project.add("b", b"2")
    branch = project.http.post("/branches", json={"project_id": project.id, "name": "other"}).json()["id"]
    me = project.http.get("/auth/me").json()["id"]
    with psycopg.connect(api.owner_url) as owner:
        owner.cursor().executemany(
            "INSERT INTO labels (project_id, name, branch_id, at_no, created_by) VALUES (%s, %s, %s, 1, %s)",
            [(project.id, "alpha", project.main, me), (project.id, "elsewhere", branch, me)],
        )
    work = new_workspace()
    assert actions(work.sync(label="alpha")[1]) == [("fetch", "a", 1)]
    elsewhere = project.http.post(f"/workspaces/{work.id}/sync", json={"label": "elsewhere"})
    assert problem(elsewhere) == (422, "invalid")
    missing = project.http.post(f"/workspaces/{work.id}/sync", json={"label": "beta"})
    assert problem(missing) == (404, "not-found")


def test_what_was_not_acknowledged_is_asked_for_again(project, new_workspace):
    project.submit([{"action": "add", "path": path, "sha256": project.put(b"x")} for path in ("a", "b", "c")])
    work = new_workspace()
    _, rows = work.plan()
    assert not work.acknowledge(1, rows[:1], complete=True)["is_complete"]
    assert actions(work.plan()[1]) == [("fetch", "b", 1), ("fetch", "c", 1)]
    project.submit([{"action": "delete", "path": "a", "base_version": 1}])
    _, rows = work.plan()
    assert actions(rows) == [("remove", "a", None), ("fetch", "b", 1), ("fetch", "c", 1)]
    assert not work.acknowledge(2, rows[:2])["is_complete"]
    assert not work.acknowledge(2, rows[:2])["is_complete"]
    done = work.acknowledge(2, rows[2:], complete=True)
    assert (done["is_complete"], done["at_no"]) == (True, 2)
    assert work.have() == {"b": 1, "c": 1}


def test_the_same_acknowledgement_twice_is_one(project, new_workspace):
    project.add("a", b"a")
    work = new_workspace()
    _, rows = work.sync()
    feed = f"/workspaces/{work.id}/activity"
    before = work.http.get(feed).json()
    work.acknowledge(1, rows, complete=True)
    assert work.http.get(feed).json() == before


@pytest.mark.parametrize("claim", [("a", 2), ("a", None), ("nowhere", 1), ("excluded", 1)])
def test_what_the_branch_does_not_hold_cannot_be_acknowledged(project, new_workspace, claim):
    content = project.put(b"x")
    project.submit([{"action": "add", "path": path, "sha256": content} for path in ("a", "excluded")])
    work = new_workspace(exclude=["excluded"])
    files = [{"path": claim[0], "version": claim[1]}]
    response = project.http.post(f"/workspaces/{work.id}/synced", json={"at": 1, "files": files})
    assert problem(response) == (409, "conflict")
    assert claim[0] in response.json()["errors"][0]["detail"]
    assert work.have() == {}


def test_corrections(project, new_workspace):
    project.submit([{"action": "add", "path": path, "sha256": project.put(b"x")} for path in ("a", "b")])
    project.submit([{"action": "edit", "path": "b", "base_version": 1, "sha256": project.put(b"y")}])
    work = new_workspace()
    work.sync()
    correction = [{"path": "a", "version": None}, {"path": "B", "version": 1}]
    plan, rows = work.plan(have=correction)
    assert not plan["is_sparse"]
    assert actions(rows) == [("fetch", "a", 1), ("replace", "b", 2)]
    assert work.have() == {"b": 1}
    work.acknowledge(plan["at"], rows, complete=True)
    assert work.have() == {"a": 1, "b": 2}
    assert work.plan(have=[{"path": "a", "version": 1}])[0]["is_sparse"], "a correction that corrects nothing"


def set_rules(project, *rules):
    body = {"rules": [{"access": "none", **rule} for rule in rules]}
    assert project.http.put(f"/projects/{project.id}/path-permissions", json=body).status_code == 200


def test_what_may_be_read_from_now_on_comes_and_what_may_not_goes(project, new_workspace):
    artist = project.member("contributor")
    project.submit([{"action": "add", "path": path, "sha256": project.put(b"x")} for path in ("a", "secret/b")])
    work = new_workspace(artist.http)
    work.sync()
    assert work.sync()[0]["is_sparse"]
    set_rules(project, {"pattern": "secret/**"})
    assert not artist.http.get(f"/workspaces/{work.id}").json()["is_complete"]
    plan, rows = work.sync()
    assert (plan["is_sparse"], actions(rows)) == (False, [("remove", "secret/b", None)])
    assert (work.have(), work.sync()[0]["is_sparse"]) == ({"a": 1}, True)
    set_rules(project)
    assert actions(work.sync()[1]) == [("fetch", "secret/b", 1)]


def test_another_role_brings_other_rules(api, project, new_workspace):
    artist = project.member("viewer")
    project.submit([{"action": "add", "path": path, "sha256": project.put(b"x")} for path in ("a", "secret/b")])
    set_rules(project, {"pattern": "secret/**", "role": "viewer"})
    work = new_workspace(artist.http)
    assert actions(work.sync()[1]) == [("fetch", "a", 1)]
    member = {"username": artist.name, "role": "contributor"}
    assert project.http.post(f"/projects/{project.id}/members", json=member).status_code == 200
    assert actions(work.sync()[1]) == [("fetch", "secret/b", 1)]
    set_rules(project, {"pattern": "secret/**"})
    assert actions(work.sync()[1]) == [("remove", "secret/b", None)]
    assert project.http.patch(f"/users/{artist.id}", json={"studio_role": "admin"}).status_code == 200
    assert actions(work.sync()[1]) == [("fetch", "secret/b", 1)]


PATTERNS = ["*1", "d0/**", "**/x*", "d1/*", "d0/x1"]


@pytest.mark.parametrize("seed", range(4))
def test_any_walk_ends_where_the_manifest_is(project, new_workspace, seed):
    """Submits on two branches, syncs to any point in any pieces, switches and patterns, against the manifest."""
    rng = random.Random(seed)
    contents = [project.put(bytes([n])) for n in range(3)]
    work = new_workspace()
    state = {"branch": project.main, "include": [], "exclude": []}
    branches = [project.main]
    for step in range(40):
        branch = rng.choice(branches)
        heads = project.heads(branch)
        items = []
        for path in rng.sample([f"d{d}/x{n}" for d in range(2) for n in range(4)], rng.randint(1, 3)):
            if path not in heads:
                items.append({"action": "add", "path": path, "sha256": rng.choice(contents)})
            elif rng.random() < 0.5:
                items.append({"action": "delete", "path": path, "base_version": heads[path][0]})
            else:
                version = heads[path][0]
                items.append({"action": "edit", "path": path, "base_version": version, "sha256": rng.choice(contents)})
        project.submit(items, branch)
        if step == 10:
            made = project.http.post("/branches", json={"project_id": project.id, "name": "side"})
            branches.append(made.json()["id"])
        if rng.random() < 0.15:
            state["branch"] = rng.choice(branches)
        if rng.random() < 0.15:
            state |= {key: rng.sample(PATTERNS, rng.randint(0, 2)) for key in ("include", "exclude")}
        body = {"branch_id": state["branch"], "include": state["include"], "exclude": state["exclude"]}
        assert project.http.patch(f"/workspaces/{work.id}", json=body).status_code == 200
        at = rng.choice([None, rng.randint(0, step + 1)])
        plan, rows = work.plan(at=at)
        if rng.random() < 0.4:  # cut off
            rows = rng.sample(rows, rng.randint(0, len(rows)))
            work.apply(rows)
            work.acknowledge(plan["at"], rows, complete=rng.random() < 0.5)
        else:
            work.apply(rows)
            assert work.acknowledge(plan["at"], rows, complete=True)["is_complete"]
            included = {
                path: version
                for path, (version, _) in project.heads(state["branch"], plan["at"]).items()
                if (not state["include"] or any(matches(one, path) for one in state["include"]))
                and not any(matches(one, path) for one in state["exclude"])
            }
            assert work.files == included
        assert work.have() == work.files
