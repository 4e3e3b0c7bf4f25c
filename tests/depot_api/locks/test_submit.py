"""What locks and typemap rules do to a submit; and the step lists of git-lfs issues 3603 and 1844."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest


def refusal(response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


@pytest.fixture
def typemap(project):
    def put(*rules: dict) -> None:
        response = project.http.put(f"/projects/{project.id}/typemap", json={"rules": list(rules)})
        assert response.status_code == 200, response.text

    return put


# git-lfs ------------------------------------------------------------------------------------------------------------


def test_git_lfs_3603(project, artist):
    """A locks, edits, submits, unlocks; B, whose copy is old, must not get the lock."""
    ada, ben = artist(), artist()
    project.add("Hero.uasset", b"1")
    bens_copy = project.heads()["Hero.uasset"][0]
    ada.locked("Hero.uasset", 1)
    assert ada.submit(ada.edit("Hero.uasset", 1, b"2")).status_code == 200
    assert project.http.get(f"/projects/{project.id}/locks").json()["items"] == []  # submit released it
    refused = ben.lock("Hero.uasset", bens_copy)
    assert refusal(refused) == (409, "stale-lock-base")
    newest = refused.json()["newest"][0]
    assert (newest["branch"], newest["version"], newest["author"]) == ("main", 2, ada.name)
    assert ben.lock("Hero.uasset", 2).status_code == 201


def test_git_lfs_1844(project, artist, branch):
    """A locks, edits on a branch, unlocks; B, on main, must not get the lock before the edit has arrived there."""
    ada, ben = artist(), artist()
    project.add("Hero.uasset", b"1")
    feature = branch("feature")
    ada.locked("Hero.uasset", 1, feature)
    content = ada.put(b"2")
    edit = {"action": "edit", "path": "Hero.uasset", "base_version": 1, "sha256": content}
    assert ada.submit(edit, branch=feature).status_code == 200
    refused = ben.lock("Hero.uasset", 1)
    assert refusal(refused) == (409, "stale-lock-base")
    newest = refused.json()["newest"][0]
    assert (newest["branch"], newest["version"], newest["author"]) == ("feature", 2, ada.name)
    arrive = {**edit, "action": "integrate", "source_branch_id": feature, "source_version": 2}
    assert ada.submit(arrive).status_code == 200
    assert ben.lock("Hero.uasset", 3).status_code == 201


# Leases and fencing -------------------------------------------------------------------------------------------------


def test_a_locked_path_is_submitted_by_its_holder_only(project, artist, branch):
    ada, ben = artist(), artist()
    project.add("a", b"1")
    release = branch("release")
    ada.locked("a", 1)
    for where in (project.main, release):
        refused = ben.submit(ben.edit("a", 1, b"2"), branch=where)
        assert refusal(refused) == (409, "locked")
        assert refused.json()["locks"][0]["holder"] == ada.name
    assert ada.submit(ada.edit("a", 1, b"2")).status_code == 200


@pytest.mark.parametrize("locked", ["a", "b"])
def test_a_move_needs_both_paths_free(project, artist, locked):
    ada, ben = artist(), artist()
    project.add("a", b"1")
    ada.locked(locked, 1 if locked == "a" else None)
    move = {"action": "move", "path": "b", "moved_from": "a", "base_version": 1, "sha256": ben.put(b"1")}
    assert refusal(ben.submit(move)) == (409, "locked")


def test_putting_items_on_a_locked_path_is_free(project, artist):
    ada, ben = artist(), artist()
    project.add("a", b"1")
    lock = ada.locked("a", 1)
    changelist = project.open([ben.edit("a", 1, b"2")], http=ben.http)
    ada.http.delete(f"/locks/{lock['id']}", headers={"If-Match": lock["etag"]})
    assert ben.http.post(f"/changelists/{changelist}/submit").status_code == 200


def test_a_lease_that_ended_no_longer_protects(project, artist, expire):
    ada, ben = artist(), artist()
    project.add("a", b"1")
    ada.locked("a", 1)
    expire("a")
    assert ben.submit(ben.edit("a", 1, b"2")).status_code == 200


def test_the_fencing_number_of_a_live_lock_passes_and_is_listed(project, artist):
    ada = artist()
    project.add("a", b"1")
    number = ada.locked("a", 1)["fencing_number"]
    changelist = project.open([ada.edit("a", 1, b"2", lock_fencing_number=number)], http=ada.http)
    assert ada.http.get(f"/changelists/{changelist}/items").json()["items"][0]["lock_fencing_number"] == number
    assert ada.http.post(f"/changelists/{changelist}/submit").status_code == 200


def test_a_late_holder_is_refused_after_a_take_over_that_changed_nothing(project, artist, expire):
    ada, ben = artist(), artist()
    project.add("a", b"1")
    number = ada.locked("a", 1)["fencing_number"]
    expire("a")
    taken = ben.locked("a", 1)
    ben.http.delete(f"/locks/{taken['id']}", headers={"If-Match": taken["etag"]})
    refused = ada.submit(ada.edit("a", 1, b"2", lock_fencing_number=number))
    assert refusal(refused) == (409, "lock-lost")
    assert refused.json()["lost"] == [{"path": "a", "lock_fencing_number": number, "holder": None}]


def test_a_late_holder_is_refused_while_another_holds_the_path(project, artist, expire):
    ada, ben = artist(), artist()
    project.add("a", b"1")
    number = ada.locked("a", 1)["fencing_number"]
    expire("a")
    ben.locked("a", 1)
    assert refusal(ada.submit(ada.edit("a", 1, b"2", lock_fencing_number=number))) == (409, "locked")


@pytest.mark.parametrize("renewed", [False, True], ids=["ended", "begun anew"])
def test_a_late_holder_is_refused_by_the_number(project, artist, expire, renewed):
    ada = artist()
    project.add("a", b"1")
    number = ada.locked("a", 1)["fencing_number"]
    expire("a")
    if renewed:
        ada.locked("a", 1)
    refused = ada.submit(ada.edit("a", 1, b"2", lock_fencing_number=number))
    assert refusal(refused) == (409, "lock-lost")
    assert refused.json()["lost"][0]["holder"] == (ada.name if renewed else None)


def test_a_broken_lock_is_lost(project, artist):
    ada, lead = artist(), artist("lead")
    project.add("a", b"1")
    lock = ada.locked("a", 1)
    lead.http.post(f"/locks/{lock['id']}/break", json={"reason": "release day"})
    refused = ada.submit(ada.edit("a", 1, b"2", lock_fencing_number=lock["fencing_number"]))
    assert refusal(refused) == (409, "lock-lost")


def test_a_move_relies_on_the_lock_of_the_path_it_leaves(project, artist):
    ada = artist()
    project.add("a", b"1")
    number = ada.locked("a", 1)["fencing_number"]
    content = ada.put(b"1")
    move = {"action": "move", "path": "b", "moved_from": "a", "base_version": 1, "sha256": content}
    assert ada.submit({**move, "lock_fencing_number": number}).status_code == 200
    assert project.http.get(f"/projects/{project.id}/locks").json()["items"] == []


def test_a_submit_releases_its_own_locks_only(project, artist):
    ada, ben = artist(), artist()
    for path in "abc":
        project.add(path, b"1")
    ada.locked("a", 1)
    ada.locked("b", 1)
    ben.locked("c", 1)
    assert ada.submit(ada.edit("a", 1, b"2")).status_code == 200
    listed = project.http.get(f"/projects/{project.id}/locks").json()["items"]
    assert [one["path"] for one in listed] == ["b", "c"]


@pytest.mark.parametrize("number", [0, -1, 2**63, "1", 1.5])
def test_what_is_not_a_fencing_number(project, number):
    changelist = project.open([])
    item = {"action": "delete", "path": "a", "base_version": 1, "lock_fencing_number": number}
    response = project.http.post(f"/changelists/{changelist}/items", json={"items": [item]})
    assert refusal(response) == (422, "invalid")


# Typemap ------------------------------------------------------------------------------------------------------------


def test_a_typemap_is_replaced_whole_and_in_order(project, artist):
    url = f"/projects/{project.id}/typemap"
    assert artist("viewer").http.get(url).json() == {"rules": []}
    full = {"exclusive": True, "mergeable": False, "asset_type": "mesh", "scope": "branch"}
    rules = [{"pattern": "*.uasset", **full}, {"pattern": "Content/**/*.txt"}]
    assert artist("lead").http.put(url, json={"rules": rules}).status_code == 200
    defaults = {"exclusive": False, "mergeable": False, "asset_type": "", "scope": "project"}
    expected = {"rules": [{"pattern": "*.uasset", **full}, {"pattern": "Content/**/*.txt", **defaults}]}
    assert project.http.get(url).json() == expected
    assert project.http.put(url, json={"rules": rules[:1]}).json()["rules"] == expected["rules"][:1]
    assert project.http.get(url).json()["rules"] == expected["rules"][:1]
    assert refusal(artist().http.put(url, json={"rules": []})) == (403, "forbidden")


@pytest.mark.parametrize(
    "rules",
    [
        [{"pattern": ""}],
        [{"pattern": "a\x00"}],
        [{"pattern": "\ud800"}],
        [{"pattern": "/a"}],
        [{"pattern": "a**"}],
        [{"pattern": "a", "scope": "world"}],
        [{"pattern": "a", "asset_type": "\x00"}],
        [{"pattern": "a", "exclusiv": True}],
        [{"pattern": "a" * 1000}] * 200,
        [{"pattern": "a"}] * 201,
    ],
    ids=range(10),
)
def test_what_is_not_a_typemap(project, rules):
    body = json.dumps({"rules": rules})  # escapes what UTF-8 cannot hold
    headers = {"Content-Type": "application/json"}
    response = project.http.put(f"/projects/{project.id}/typemap", content=body, headers=headers)
    assert response.status_code == 422, response.text


def test_replacing_a_typemap_at_once_from_many_sides(project):
    lists = [[{"pattern": f"side{side}/{n}"} for n in range(5)] for side in range(8)]

    def put(rules: list[dict]) -> int:
        return project.http.put(f"/projects/{project.id}/typemap", json={"rules": rules}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(put, lists)) == {200}
    patterns = [rule["pattern"] for rule in project.http.get(f"/projects/{project.id}/typemap").json()["rules"]]
    assert patterns in [[rule["pattern"] for rule in rules] for rules in lists]


@pytest.mark.parametrize("action", ["edit", "delete", "move"])
def test_an_exclusive_path_takes_its_lock(project, artist, typemap, action):
    ada = artist()
    project.add("Content/Hero.UAsset", b"1")  # there before the rule
    typemap({"pattern": "*.uasset", "exclusive": True})
    item = {"action": action, "path": "Content/Hero.UAsset", "base_version": 1}
    if action != "delete":
        item["sha256"] = ada.put(b"2")
    if action == "move":
        item |= {"path": "Content/Villain.uasset", "moved_from": "Content/Hero.UAsset"}
    refused = ada.submit(item)
    assert refusal(refused) == (409, "lock-required")
    assert refused.json()["required"] == [{"path": "Content/Hero.UAsset", "pattern": "*.uasset"}]
    assert "*.uasset" in refused.json()["detail"]
    ada.locked("content/hero.uasset", 1)
    assert ada.submit(item).status_code == 200


def test_adding_takes_no_lock_and_changing_what_was_added_does(project, artist, typemap):
    ada = artist()
    typemap({"pattern": "*.uasset", "exclusive": True})
    added = {"action": "add", "path": "new.uasset", "sha256": ada.put(b"1")}
    assert ada.submit(added).status_code == 200
    assert refusal(ada.submit(ada.edit("new.uasset", 1, b"2"))) == (409, "lock-required")


def test_a_lease_that_ended_is_no_lock(project, artist, typemap, expire):
    ada = artist()
    project.add("a.uasset", b"1")
    typemap({"pattern": "*.uasset", "exclusive": True})
    ada.locked("a.uasset", 1)
    expire("a.uasset")
    assert refusal(ada.submit(ada.edit("a.uasset", 1, b"2"))) == (409, "lock-required")


def test_the_last_rule_that_matches_holds(project, artist, typemap):
    ada = artist()
    for path in ("a.uasset", "Dev/b.uasset", "Dev/Final/c.uasset", "d.txt"):
        project.add(path, b"1")
    typemap(
        {"pattern": "*.uasset", "exclusive": True},
        {"pattern": "Dev/**", "exclusive": False},
        {"pattern": "Dev/Final/**", "exclusive": True},
        {"pattern": "Art/**", "exclusive": True},
    )
    free = [ada.edit(path, 1, b"2") for path in ("Dev/b.uasset", "d.txt")]
    held = [ada.edit(path, 1, b"2") for path in ("a.uasset", "Dev/Final/c.uasset")]
    refused = ada.submit(*free, *held)
    assert refusal(refused) == (409, "lock-required")
    assert refused.json()["required"] == [
        {"path": "a.uasset", "pattern": "*.uasset"},
        {"path": "Dev/Final/c.uasset", "pattern": "Dev/Final/**"},
    ]
    assert ada.submit(*free).status_code == 200


def test_an_integration_is_an_edit_unless_it_brings_a_newer_version_as_it_is(project, artist, branch, typemap):
    ada, ben = artist(), artist()
    project.add("hero.uasset", b"1")
    side = branch("side")
    ada.locked("hero.uasset", 1, side)
    assert ada.submit(ada.edit("hero.uasset", 1, b"2"), branch=side).status_code == 200
    typemap({"pattern": "*.uasset", "exclusive": True})
    arrive = {**ben.edit("hero.uasset", 1, b"2"), "action": "integrate", "source_branch_id": side, "source_version": 2}
    other = {**arrive, "sha256": ben.put(b"neither")}
    assert refusal(ben.submit(other)) == (409, "lock-required")
    assert ben.submit(arrive).status_code == 200
    back = {**arrive, "base_version": 3, "sha256": ben.put(b"1"), "source_version": 1}
    assert refusal(ben.submit(back)) == (409, "lock-required")
    ben.locked("hero.uasset", 3)
    assert ben.submit(back).status_code == 200


def test_an_integration_has_a_source(api, project, new_project, artist, branch):
    ada = artist()
    project.add("a", b"1")
    side, other = branch("side"), new_project()
    other.add("a", b"1")
    item = {**ada.edit("a", 1, b"2"), "action": "integrate"}
    for source, version in ((side, 777), (project.main, 2), (other.main, 1)):
        named = {**item, "source_branch_id": source, "source_version": version}
        refused = ada.http.post(f"/changelists/{project.open([], http=ada.http)}/items", json={"items": [named]})
        assert refusal(refused) == (422, "invalid")
        assert f"'a' has no version {version} on that branch" in refused.json()["errors"][0]["detail"]
    known = project.open([{**item, "source_branch_id": side, "source_version": 1}], http=ada.http)
    with psycopg.connect(api.owner_url) as owner:  # whatever wrote the item: history takes no false one
        owner.execute("UPDATE changelist_items SET source_version = 777 WHERE changelist_id = %s", (known,))
    assert ada.http.post(f"/changelists/{known}/submit").status_code == 409


def test_a_scope_of_one_branch(project, artist, branch, typemap):
    ada, ben = artist(), artist()
    project.add("notes.txt", b"1")
    project.add("hero.uasset", b"1")
    release = branch("release")
    typemap({"pattern": "*.txt", "scope": "branch"})
    for path in ("notes.txt", "hero.uasset"):
        assert ada.submit(ada.edit(path, 1, b"2"), branch=release).status_code == 200
    assert refusal(ben.lock("hero.uasset", 1)) == (409, "stale-lock-base")
    assert ben.lock("notes.txt", 1).status_code == 201
    assert refusal(ben.lock("notes.txt", 2)) == (409, "stale-lock-base")


def test_a_submit_and_a_break_that_race_agree(project, artist, typemap):
    """An exclusive path never changes after its lock was broken: one of the two comes first."""
    typemap({"pattern": "**", "exclusive": True})
    for turn in range(10):
        ada = artist()
        project.add(f"p{turn}", b"1")
        lock = ada.locked(f"p{turn}", 1)
        changelist = project.open([ada.edit(f"p{turn}", 1, b"2")], http=ada.http)
        ready = threading.Barrier(2)

        def post(http, url: str, body: dict, ready: threading.Barrier = ready) -> int:
            ready.wait()
            return http.post(url, json=body).status_code

        with ThreadPoolExecutor(2) as pool:
            submitted = pool.submit(post, ada.http, f"/changelists/{changelist}/submit", {})
            broken = pool.submit(post, project.http, f"/locks/{lock['id']}/break", {"reason": "r"})
        assert (submitted.result(), broken.result()) in [(200, 404), (409, 204)]
