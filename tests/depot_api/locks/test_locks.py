"""Invariant 9: a lock is granted on the newest version only, has a lease and a fencing number, and holds."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import psycopg
import pytest
from psycopg import errors


def refusal(response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


def test_a_lock_says_who_what_and_until_when(project, artist):
    project.add("Hero.uasset", b"1")
    ada = artist()
    response = ada.lock("Hero.uasset", 1, lease_seconds=600)
    lock = response.json()
    assert response.status_code == 201
    assert (lock["path"], lock["holder"], lock["holder_id"], lock["base_version"]) == (
        "Hero.uasset",
        ada.name,
        ada.id,
        1,
    )
    lease = datetime.fromisoformat(lock["expires_at"]) - datetime.fromisoformat(lock["acquired_at"])
    assert lease == timedelta(seconds=600)
    got = project.http.get(f"/locks/{lock['id']}")
    assert (got.json(), got.headers["etag"]) == (lock, response.headers["etag"])


def test_a_lock_held_by_someone_else_is_named(artist):
    ada, ben = artist(), artist()
    lock = ada.locked("new.uasset", None)
    refused = ben.lock("New.uasset", None)
    assert refusal(refused) == (409, "locked")
    held = refused.json()["locks"][0]
    assert {name: lock[name] for name in ("path", "holder", "holder_id", "acquired_at", "expires_at")} == held
    assert ada.name in refused.json()["detail"]


def test_the_holder_asks_again_and_renews(artist):
    ada = artist()
    first = ada.locked("a", None, lease_seconds=60)
    response = ada.lock("a", None, lease_seconds=3600)
    again = response.json()
    assert response.status_code == 200
    assert (again["id"], again["fencing_number"]) == (first["id"], first["fencing_number"])
    assert again["acquired_at"] == first["acquired_at"]
    assert again["expires_at"] > first["expires_at"]


def test_a_lease_that_ended_is_taken_over_with_a_new_fencing_number(artist, expire):
    ada, ben = artist(), artist()
    first = ada.locked("a", None)
    expire("a")
    second = ben.locked("a", None)
    assert second["fencing_number"] > first["fencing_number"]
    assert second["id"] != first["id"]
    assert ada.http.get(f"/locks/{first['id']}").status_code == 404


def test_the_same_holder_after_the_lease_begins_anew(artist, expire):
    ada = artist()
    first = ada.locked("a", None)
    expire("a")
    response = ada.lock("a", None)
    assert response.status_code == 201
    assert response.json()["fencing_number"] > first["fencing_number"]


@pytest.mark.parametrize("base", [None, 2])
def test_the_base_has_to_be_the_newest_version(project, artist, base):
    project.add("a", b"1")
    refused = artist().lock("a", base)
    assert refusal(refused) == (409, "stale-lock-base")
    newest = refused.json()["newest"][0]
    assert (newest["branch"], newest["version"], newest["changelist_no"], newest["author"]) == ("main", 1, 1, "admin")


def test_a_path_that_was_never_there(artist):
    refused = artist().lock("a", 1)
    assert refusal(refused) == (409, "stale-lock-base")
    assert refused.json()["newest"][0]["branch"] is None


def test_a_deleted_path_is_locked_without_a_base(project, artist):
    project.add("a", b"1")
    project.submit([{"action": "delete", "path": "a", "base_version": 1}])
    ada = artist()
    refused = ada.lock("a", 1)
    assert refusal(refused) == (409, "stale-lock-base")
    assert (refused.json()["newest"][0]["version"], refused.json()["newest"][0]["changelist_no"]) == (None, 2)
    assert ada.lock("a", None).status_code == 201


def test_a_version_of_another_branch_is_in_the_way(project, artist, branch):
    project.add("a", b"1")
    release = branch("release")
    project.submit([{"action": "edit", "path": "a", "base_version": 1, "sha256": project.put(b"2")}], release)
    ada = artist()
    for base in (1, 2):
        refused = ada.lock("a", base)
        assert refusal(refused) == (409, "stale-lock-base")
        newest = refused.json()["newest"][0]
        assert (newest["branch"], newest["version"], newest["changelist_no"]) == ("release", 2, 2)
    assert ada.lock("a", 2, release).status_code == 201


def test_a_path_that_lives_on_another_branch_only(project, artist, branch):
    release = branch("release")
    project.add("a", b"1", release)
    refused = artist().lock("a", None)
    assert refusal(refused) == (409, "stale-lock-base")
    assert refused.json()["newest"][0]["branch"] == "release"


def test_a_deletion_on_another_branch_is_not_in_the_way(project, artist, branch):
    project.add("a", b"1")
    release = branch("release")
    project.submit([{"action": "edit", "path": "a", "base_version": 1, "sha256": project.put(b"2")}], release)
    project.submit([{"action": "delete", "path": "a", "base_version": 2}], release)
    assert artist().lock("a", 1).status_code == 201


def test_renewing_and_releasing_take_the_state_that_was_read(artist):
    ada = artist()
    lock = ada.locked("a", None, lease_seconds=60)
    url = f"/locks/{lock['id']}"
    assert refusal(ada.http.post(f"{url}/renew", json={})) == (428, "precondition-required")
    stale = {"If-Match": lock["etag"]}
    renewed = ada.http.post(f"{url}/renew", json={"lease_seconds": 600}, headers=stale)
    assert renewed.status_code == 200
    assert renewed.json()["expires_at"] > lock["expires_at"]
    assert ada.http.get(url).headers["etag"] == renewed.headers["etag"] != lock["etag"]
    assert refusal(ada.http.post(f"{url}/renew", json={}, headers=stale)) == (412, "stale-precondition")
    assert refusal(ada.http.delete(url)) == (428, "precondition-required")
    assert refusal(ada.http.delete(url, headers=stale)) == (412, "stale-precondition")
    assert ada.http.delete(url, headers={"If-Match": renewed.headers["etag"]}).status_code == 204
    assert ada.http.get(url).status_code == 404


def test_a_lease_that_ended_is_not_renewed(artist, expire):
    ada = artist()
    lock = ada.locked("a", None)
    expire("a")
    response = ada.http.post(f"/locks/{lock['id']}/renew", json={}, headers={"If-Match": "*"})
    assert refusal(response) == (409, "lock-lost")


def test_only_the_holder_renews_and_releases(project, artist):
    lock = artist().locked("a", None)
    for other in (artist(), artist("lead")):
        match = {"If-Match": lock["etag"]}
        renewed = other.http.post(f"/locks/{lock['id']}/renew", json={}, headers=match)
        assert refusal(renewed) == (403, "forbidden")
        assert refusal(other.http.delete(f"/locks/{lock['id']}", headers=match)) == (403, "forbidden")
    assert project.http.get(f"/locks/{lock['id']}").headers["etag"] == lock["etag"]


def test_a_lead_breaks_a_lock_and_the_reason_is_kept(api, project, artist):
    ada, lead = artist(), artist("lead")
    lock = ada.locked("a", None)
    url = f"/locks/{lock['id']}/break"
    assert refusal(artist().http.post(url, json={"reason": "mine"})) == (403, "forbidden")
    assert refusal(lead.http.post(url, json={})) == (422, "invalid")
    assert refusal(lead.http.post(url, json={"reason": ""})) == (422, "invalid")
    assert refusal(lead.http.post(url, json={"reason": " \n"})) == (422, "invalid")
    assert lead.http.post(url, json={"reason": "on holiday"}).status_code == 204
    assert lead.http.post(url, json={"reason": "on holiday"}).status_code == 404
    with psycopg.connect(api.owner_url) as owner:
        kept = owner.execute(
            "SELECT holder_id::text, broken_by::text, reason, fencing_number FROM lock_breaks WHERE lock_id = %s",
            (lock["id"],),
        ).fetchall()
        told = owner.execute(
            "SELECT payload FROM events WHERE project_id = %s AND kind = 'lock.broken'", (project.id,)
        ).fetchone()
        audited = owner.execute(
            "SELECT actor_id::text FROM audit_log WHERE table_name = 'lock_breaks' AND project_id = %s", (project.id,)
        ).fetchall()
    assert kept == [(ada.id, lead.id, "on holiday", lock["fencing_number"])]
    assert (told[0]["reason"], told[0]["locks"][0]["path"]) == ("on holiday", "a")
    assert audited == [(lead.id,)]


def test_a_batch_is_all_or_nothing(project, artist):
    ada, ben = artist(), artist()
    ada.locked("b", None)
    wanted = {"project_id": project.id, "branch_id": project.main}
    items = [{"path": path, "base_version": None} for path in "cba"]
    refused = ben.http.post("/locks/batch", json={**wanted, "items": items})
    assert refusal(refused) == (409, "locked")
    assert [one["path"] for one in refused.json()["locks"]] == ["b"]
    assert [one["path"] for one in project.http.get(f"/projects/{project.id}/locks").json()["items"]] == ["b"]
    granted = ben.http.post("/locks/batch", json={**wanted, "items": [items[0], items[2]]})
    assert granted.status_code == 201
    assert [one["path"] for one in granted.json()["items"]] == ["c", "a"]
    twice = ben.http.post("/locks/batch", json={**wanted, "items": [items[0], {**items[0], "path": "C"}]})
    assert refusal(twice) == (422, "path-in-use")


def test_a_thousand_paths_in_one_call(project, artist):
    ada = artist()
    paths = [f"Content/{n:04}.uasset" for n in range(1000)]
    content = project.put(b"x")
    project.submit([{"action": "add", "path": path, "sha256": content} for path in paths])
    items = [{"path": path, "base_version": 1} for path in paths]
    wanted = {"project_id": project.id, "branch_id": project.main, "items": items}
    granted = ada.http.post("/locks/batch", json=wanted)
    assert [one["path"] for one in granted.json()["items"]] == paths
    again = ada.http.post("/locks/batch", json=wanted)
    assert again.status_code == 200
    assert [one["id"] for one in again.json()["items"]] == [one["id"] for one in granted.json()["items"]]


def test_listing_with_filters_and_pages(project, artist, expire):
    ada, ben = artist(), artist()
    for path in ("Art/a", "Art/b", "Code/c"):
        ada.locked(path, None)
    ben.locked("Art/d", None)
    expire("art/b")

    def listed(**query) -> list[str]:
        response = project.http.get(f"/projects/{project.id}/locks", params=query)
        assert response.status_code == 200, response.text
        return [one["path"] for one in response.json()["items"]]

    assert listed() == ["Art/a", "Art/b", "Art/d", "Code/c"]
    assert listed(prefix="art/") == ["Art/a", "Art/b", "Art/d"]
    assert listed(path="ART/A") == ["Art/a"]
    assert listed(holder=ben.name.upper()) == ["Art/d"]
    assert listed(holder="nobody") == []
    assert listed(expired=True) == ["Art/b"]
    assert listed(expired=False, holder=ada.name) == ["Art/a", "Code/c"]
    first = project.http.get(f"/projects/{project.id}/locks", params={"limit": 3}).json()
    rest = project.http.get(f"/projects/{project.id}/locks", params={"limit": 3, "cursor": first["next_cursor"]})
    assert [one["path"] for one in rest.json()["items"]] == ["Code/c"]
    assert rest.json()["next_cursor"] is None


def test_who_may_lock(api, project, artist, new_project, branch):
    lock = artist().locked("a", None)
    viewer, stranger = artist("viewer"), api.user()
    assert refusal(viewer.lock("b", None)) == (403, "forbidden")
    body = {"project_id": project.id, "branch_id": project.main, "path": "b", "base_version": None}
    assert refusal(stranger.http.post("/locks", json=body)) == (404, "not-found")
    for request in (f"/locks/{lock['id']}", f"/projects/{project.id}/locks", f"/projects/{project.id}/typemap"):
        assert refusal(stranger.http.get(request)) == (404, "not-found")
    assert refusal(stranger.http.post(f"/locks/{lock['id']}/break", json={"reason": "r"})) == (404, "not-found")
    elsewhere = new_project()
    assert refusal(artist().lock("b", None, elsewhere.main)) == (404, "not-found")
    assert refusal(project.http.post("/locks", json={**body, "branch_id": elsewhere.main})) == (404, "not-found")


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "a\x00b"},
        {"path": "a//b"},
        {"path": "../a"},
        {"base_version": 0},
        {"base_version": 2**31},
        {"base_version": "1"},
        {"lease_seconds": 0},
        {"lease_seconds": 7 * 24 * 3600 + 1},
        {"lease_seconds": 2**70},
        {"fencing_number": 1},
    ],
)
def test_what_is_not_a_lock(artist, wrong):
    ada = artist()
    response = ada.lock(**{"path": "a", "base": None, **wrong})
    assert response.status_code == 422, response.text


def test_a_base_has_to_be_said(artist, project):
    body = {"project_id": project.id, "branch_id": project.main, "path": "a"}
    assert refusal(artist().http.post("/locks", json=body)) == (422, "invalid")


def test_of_eight_at_once_exactly_one_wins(project, artist):
    people = [artist() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: one.lock("a", None), people))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    [winner] = [answer.json() for answer in answers if answer.status_code == 201]
    for answer in answers:
        if answer.status_code == 409:
            assert refusal(answer) == (409, "locked")
            assert answer.json()["locks"][0]["holder"] == winner["holder"]


def test_batches_that_overlap_in_opposite_orders_never_deadlock(project, artist):
    people = [artist() for _ in range(8)]
    paths = [f"p{n}" for n in range(50)]

    def lock_all(place: int) -> int:
        ordered = paths if place % 2 else paths[::-1]
        body = {
            "project_id": project.id,
            "branch_id": project.main,
            "items": [{"path": path, "base_version": None} for path in ordered],
        }
        return people[place].http.post("/locks/batch", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lock_all, range(8))) == [201] + [409] * 7


def test_a_lock_and_a_submit_that_race_agree(project, artist):
    """Whichever is first, nobody ends up with a lock on a version that is not the newest."""
    content = project.put(b"2")
    for turn in range(10):
        path = f"race{turn}"
        project.add(path, b"1")
        ada = artist()
        edit = {"action": "edit", "path": path, "base_version": 1, "sha256": content}
        changelist = project.open([edit])
        with ThreadPoolExecutor(2) as pool:
            submitted = pool.submit(project.http.post, f"/changelists/{changelist}/submit")
            locked = pool.submit(ada.lock, path, 1)
        outcome = (submitted.result().status_code, locked.result().status_code)
        assert outcome in [(200, 409), (409, 201)], (submitted.result().text, locked.result().text)


def as_user(connection: psycopg.Connection, user_id: str) -> None:
    connection.execute("SELECT set_app_user(%s)", (user_id,))


@pytest.mark.parametrize("role", ["contributor", "lead", "owner"])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE locks SET expires_at = now() WHERE id = %s", "DELETE FROM locks WHERE id = %s"],
    ids=["update", "delete"],
)
def test_in_the_database_a_lock_is_its_holders(api, artist, role, statement):
    lock = artist().locked("a", None)
    with psycopg.connect(api.service_url) as service:
        as_user(service, artist(role).id)
        assert service.execute(statement, (lock["id"],)).rowcount == 0


def test_in_the_database_nobody_locks_for_another_or_chooses_a_number(api, project, artist):
    ada, ben = artist(), artist()
    lock = ada.locked("a", None)
    with psycopg.connect(api.service_url) as service:
        as_user(service, ada.id)
        insert = """INSERT INTO locks (project_id, path_key, path, holder_id, expires_at, fencing_number)
                    VALUES (%s, 'b', 'b', %s, now() + %s::interval, 1) RETURNING fencing_number"""
        with pytest.raises(errors.InsufficientPrivilege), service.transaction():
            service.execute(insert, (project.id, ben.id, "1 hour"))
        with pytest.raises(errors.CheckViolation), service.transaction():
            service.execute(insert, (project.id, ada.id, "8 days"))
        with pytest.raises(errors.InsufficientPrivilege), service.transaction():
            service.execute("UPDATE locks SET holder_id = %s WHERE id = %s", (ben.id, lock["id"]))
        with pytest.raises(errors.InsufficientPrivilege), service.transaction():
            service.execute("UPDATE locks SET fencing_number = 1 WHERE id = %s", (lock["id"],))
        chosen = service.execute(insert, (project.id, ada.id, "1 hour")).fetchone()
        assert chosen[0] > lock["fencing_number"]


def test_in_the_database_only_leads_break_and_breaks_are_kept(api, artist):
    lock, contributor, lead = artist().locked("a", None), artist(), artist("lead")
    with psycopg.connect(api.service_url) as service:
        as_user(service, contributor.id)
        with pytest.raises(errors.InsufficientPrivilege), service.transaction():
            service.execute("SELECT FROM break_lock(%s, 'r')", (lock["id"],))
        as_user(service, lead.id)
        with pytest.raises(errors.CheckViolation), service.transaction():
            service.execute("SELECT FROM break_lock(%s, '')", (lock["id"],))
        assert service.execute("SELECT FROM break_lock(%s, 'r')", (lock["id"],)).rowcount == 1
        with pytest.raises(errors.InsufficientPrivilege), service.transaction():
            service.execute("DELETE FROM lock_breaks")
        with pytest.raises(errors.InsufficientPrivilege), service.transaction():
            service.execute("UPDATE lock_breaks SET reason = 'other'")
    with psycopg.connect(api.owner_url) as owner, pytest.raises(errors.RestrictViolation):
        owner.execute("DELETE FROM lock_breaks")


def test_in_the_database_no_head_of_a_locked_path_changes(api, project, artist):
    project.add("a", b"1")
    artist().locked("a", 1)
    copy = """INSERT INTO branch_heads SELECT project_id, branch_id, path_key, from_no + 1, path, asset_id, version,
                  sha256, size_bytes FROM branch_heads WHERE project_id = %s"""
    with psycopg.connect(api.service_url) as service:
        as_user(service, project.http.get("/auth/me").json()["id"])
        with pytest.raises(errors.RestrictViolation):
            service.execute(copy, (project.id,))


def test_an_archived_project_takes_no_locks(api, project, artist):
    ada = artist()
    lock = ada.locked("a", None)
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE projects SET status = 'archived' WHERE id = %s", (project.id,))
    for response in (
        ada.lock("b", None),
        ada.http.delete(f"/locks/{lock['id']}", headers={"If-Match": "*"}),
        project.http.post(f"/locks/{lock['id']}/break", json={"reason": "r"}),
        project.http.put(f"/projects/{project.id}/typemap", json={"rules": []}),
    ):
        assert refusal(response) == (409, "project-archived")
