"""Shelves: who may do what with them, what they keep, and how their items come and go."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from psycopg import errors


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


def send(project, http: httpx.Client, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    response = http.put(f"/projects/{project.id}/objects/{sha256}", content=content)
    assert response.status_code == 201, response.text
    return sha256


@pytest.fixture
def shelve(project):
    def make(items, http: httpx.Client | None = None, **wanted):
        document = {"project_id": project.id, "branch_id": project.main, "items": items, **wanted}
        return (http or project.http).post("/shelves", json=document)

    return make


def items_of(http: httpx.Client, shelf: str) -> list[dict]:
    return http.get(f"/shelves/{shelf}/items").json()["items"]


def test_shelve_list_update_delete(project, shelve):
    project.add("a", b"1")
    other, content = project.member("contributor"), project.put(b"shelved")
    items = [
        {"action": "add", "path": "b", "sha256": content},
        {"action": "move", "path": "c", "moved_from": "a", "base_version": 1, "sha256": content},
    ]
    made = shelve(items, description="wip")
    assert made.status_code == 201, made.text
    shelf = made.json()
    assert (shelf["owner"], shelf["description"], shelf["items_count"]) == ("admin", "wip", 2)
    assert other.http.get(f"/shelves/{shelf['id']}").json() == shelf
    no_more = {"source_branch_id": None, "source_version": None, "lock_fencing_number": None}
    assert items_of(other.http, shelf["id"]) == [
        {"base_version": None, "size_bytes": 7, "moved_from": None, **items[0], **no_more},
        {"size_bytes": 7, **items[1], **no_more},
    ]
    delete = {"action": "delete", "path": "a", "base_version": 1}
    replaced = project.http.put(f"/shelves/{shelf['id']}/items", json={"items": [delete]})
    assert (replaced.status_code, replaced.json()["items_count"]) == (200, 1)
    assert [item["action"] for item in items_of(project.http, shelf["id"])] == ["delete"]
    assert project.http.delete(f"/shelves/{shelf['id']}").status_code == 204
    assert problem(project.http.get(f"/shelves/{shelf['id']}")) == (404, "not-found")


def test_integrations_and_the_locks_they_rely_on_come_back(project, shelve):
    project.add("a", b"1")
    side = project.http.post("/branches", json={"project_id": project.id, "name": "side"}).json()["id"]
    content = project.put(b"2")
    edit = {"action": "edit", "path": "a", "base_version": 1, "sha256": content}
    project.submit([edit], side)
    arrive = {**edit, "action": "integrate", "source_branch_id": side, "source_version": 2, "lock_fencing_number": 7}
    shelved = project.http.post(f"/changelists/{project.open([arrive])}/shelve", json={})
    other = project.member("contributor")
    for shelf in (shelved, shelve([arrive])):
        assert shelf.status_code == 201, shelf.text
        for http, number in ((project.http, 7), (other.http, None)):
            changelist = project.open([], http=http)
            unshelved = http.post(f"/shelves/{shelf.json()['id']}/unshelve", json={"changelist_id": changelist})
            assert unshelved.status_code == 200, unshelved.text
            (item,) = http.get(f"/changelists/{changelist}/items").json()["items"]
            assert {name: item[name] for name in arrive} == {**arrive, "lock_fencing_number": number}
    assert problem(shelve([{**arrive, "source_version": 3}])) == (422, "invalid")


def test_lists_are_filtered_and_paged(project, shelve):
    other = project.member("contributor")
    branch = project.http.post("/branches", json={"project_id": project.id, "name": "side"}).json()["id"]
    mine = shelve([{"action": "add", "path": "a", "sha256": project.put(b"a")}]).json()["id"]
    content = send(project, other.http, b"b")
    theirs = shelve([{"action": "add", "path": "b", "sha256": content}], other.http, branch_id=branch).json()["id"]

    def listed(**query: str) -> list[str]:
        page = project.http.get(f"/projects/{project.id}/shelves", params=query).json()
        return [shelf["id"] for shelf in page["items"]]

    assert sorted(listed()) == sorted([mine, theirs])
    assert (listed(owner_id=other.id), listed(branch_id=project.main)) == ([theirs], [mine])
    first = project.http.get(f"/projects/{project.id}/shelves", params={"limit": 1}).json()
    assert sorted([first["items"][0]["id"], *listed(cursor=first["next_cursor"])]) == sorted([mine, theirs])


def test_a_member_fetches_and_takes_what_was_shelved(project, shelve):
    """The content becomes the project's: no proof of possession is asked of the one who unshelves."""
    owner, other = project.member("contributor"), project.member("contributor")
    content = send(project, owner.http, b"work of " + owner.name.encode())
    assert other.http.get(f"/projects/{project.id}/objects/{content}").status_code == 404
    shelf = shelve([{"action": "add", "path": "new", "sha256": content}], owner.http).json()["id"]
    assert other.http.get(f"/projects/{project.id}/objects/{content}").status_code == 200
    changelist = project.open([], http=other.http)
    response = other.http.post(f"/shelves/{shelf}/unshelve", json={"changelist_id": changelist})
    assert response.json() == {"changelist_id": changelist, "items_count": 1}
    assert other.http.post(f"/changelists/{changelist}/submit").status_code == 200
    assert project.heads() == {"new": (1, content)}
    assert owner.http.get(f"/shelves/{shelf}").status_code == 200, "a shelf stays"


def test_unshelving_replaces_only_when_told(project, shelve):
    one, two = project.put(b"1"), project.put(b"2")
    shelf = shelve([{"action": "add", "path": "a", "sha256": one}, {"action": "add", "path": "b", "sha256": one}])
    changelist = project.open([{"action": "add", "path": "A", "sha256": two}])
    path, body = f"/shelves/{shelf.json()['id']}/unshelve", {"changelist_id": changelist}
    refused = project.http.post(path, json=body)
    assert (problem(refused), refused.json()["errors"][0]["detail"]) == ((409, "conflict"), "A")
    assert project.http.post(path, json={**body, "replace": True}).json()["items_count"] == 2
    items = project.http.get(f"/changelists/{changelist}/items").json()["items"]
    assert [(item["path"], item["sha256"]) for item in items] == [("a", one), ("b", one)]


def test_a_changelist_is_shelved_and_stays_open(project):
    changelist = project.open([{"action": "add", "path": "a", "sha256": project.put(b"a")}])
    key = {"Idempotency-Key": f"shelve-{changelist}"}
    first, second = [
        project.http.post(f"/changelists/{changelist}/shelve", json={"description": "wip"}, headers=key)
        for _ in range(2)
    ]
    assert (first.status_code, first.text) == (201, second.text)
    assert (first.json()["changelist_id"], first.json()["items_count"]) == (changelist, 1)
    assert project.http.post(f"/changelists/{changelist}/submit").status_code == 200
    closed = project.http.post(f"/changelists/{changelist}/shelve", json={})
    assert problem(closed) == (409, "changelist-closed")
    empty = project.open([])
    assert problem(project.http.post(f"/changelists/{empty}/shelve", json={})) == (409, "empty-changelist")
    other = project.member("contributor")
    assert problem(other.http.post(f"/changelists/{project.open([])}/shelve", json={})) == (403, "forbidden")


def test_only_the_owner_and_leads_change_a_shelf(api, project, shelve):
    owner, other, lead = project.member("contributor"), project.member("contributor"), project.member("lead")
    content = send(project, owner.http, b"a")
    item = {"action": "add", "path": "a", "sha256": content}
    shelf = shelve([item], owner.http).json()["id"]
    for response in (
        other.http.patch(f"/shelves/{shelf}", json={"description": "mine"}),
        other.http.put(f"/shelves/{shelf}/items", json={"items": [item]}),
        other.http.delete(f"/shelves/{shelf}"),
    ):
        assert problem(response) == (403, "forbidden")
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (other.id,))
        for statement in (
            "DELETE FROM shelves WHERE id = %s",
            "DELETE FROM shelf_items WHERE shelf_id = %s",
            "UPDATE shelves SET description = '' WHERE id = %s",
        ):
            assert connection.execute(statement, (shelf,)).rowcount == 0
        for statement in (
            "INSERT INTO shelf_items SELECT project_id, id, 'b', 'b', 'delete', 1 FROM shelves WHERE id = %s",
            "INSERT INTO shelves (project_id, branch_id, owner_id) SELECT project_id, branch_id, owner_id FROM shelves"
            " WHERE id = %s",
        ):
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement, (shelf,))
    assert lead.http.patch(f"/shelves/{shelf}", json={"description": "for review"}).status_code == 200
    assert lead.http.put(f"/shelves/{shelf}/items", json={"items": [item]}).json()["owner"] == owner.name
    assert lead.http.delete(f"/shelves/{shelf}").status_code == 204
    viewer = project.member("viewer")
    assert problem(shelve([item], viewer.http)) == (403, "forbidden")


def test_strangers_see_no_shelf(api, project, shelve):
    shelf = shelve([{"action": "add", "path": "a", "sha256": project.put(b"a")}]).json()["id"]
    stranger = api.user("editor")
    for method, path in (("GET", ""), ("GET", "/items"), ("DELETE", "")):
        assert problem(stranger.http.request(method, f"/shelves/{shelf}{path}")) == (404, "not-found")
    changelist = project.open([])
    response = stranger.http.post(f"/shelves/{shelf}/unshelve", json={"changelist_id": changelist})
    assert problem(response) == (404, "not-found")


def test_a_lock_of_someone_else_stops_a_shelve(api, project, shelve):
    project.add("a", b"1")
    holder, content = project.member("contributor"), project.put(b"2")
    with psycopg.connect(api.owner_url) as owner:
        owner.execute(
            """INSERT INTO locks (project_id, path_key, path, holder_id, expires_at)
               VALUES (%s, 'a', 'a', %s, now() + interval '1 hour')""",
            (project.id, holder.id),
        )
    edit = {"action": "edit", "path": "a", "base_version": 1, "sha256": content}
    move = {"action": "move", "path": "b", "moved_from": "a", "base_version": 1, "sha256": content}
    for response in (
        shelve([edit]),
        shelve([move]),
        project.http.post(f"/changelists/{project.open([edit])}/shelve", json={}),
    ):
        assert problem(response) == (409, "locked")
        assert response.json()["locks"][0]["holder"] == holder.name
    assert project.http.get(f"/projects/{project.id}/shelves").json()["items"] == []
    assert shelve([{**edit, "sha256": send(project, holder.http, b"3")}], holder.http).status_code == 201


def test_a_hash_is_not_a_capability(api, project, new_project, shelve):
    """Content of another project is not had by naming its hash, neither through a shelf nor past it in SQL."""
    secret = new_project().put(b"secret of another project " + project.id.encode())
    thief = project.member("contributor")
    item = {"action": "add", "path": "a", "sha256": secret}
    refused = shelve([item], thief.http)
    assert (problem(refused), refused.json()["missing"]) == ((409, "missing-content"), [secret])
    changelist = project.open([item], http=thief.http)
    assert problem(thief.http.post(f"/changelists/{changelist}/shelve", json={})) == (409, "missing-content")
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (thief.id,))
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("INSERT INTO project_blobs VALUES (%s, %s)", (project.id, bytes.fromhex(secret)))


def test_links_to_a_changelist(project, new_project, shelve):
    item = {"action": "add", "path": "a", "sha256": project.put(b"a")}
    shelf = shelve([item]).json()["id"]
    changelist = project.open([])
    linked = project.http.patch(f"/shelves/{shelf}", json={"changelist_id": changelist}).json()
    assert (linked["changelist_id"], linked["description"]) == (changelist, "")
    kept = project.http.patch(f"/shelves/{shelf}", json={"description": "x"}).json()
    assert (kept["changelist_id"], kept["description"]) == (changelist, "x")
    assert project.http.patch(f"/shelves/{shelf}", json={"changelist_id": None}).json()["changelist_id"] is None
    other = new_project()
    foreign = other.open([])
    assert problem(project.http.patch(f"/shelves/{shelf}", json={"changelist_id": foreign})) == (404, "not-found")
    assert problem(shelve([item], changelist_id=foreign)) == (404, "not-found")
    assert problem(shelve([item], branch_id=other.main)) == (404, "not-found")
    unshelved = project.http.post(f"/shelves/{shelf}/unshelve", json={"changelist_id": foreign})
    assert problem(unshelved) == (404, "not-found")


@pytest.mark.parametrize(
    ("items", "slug"),
    [
        ([], "invalid"),
        ([{"action": "add", "path": "a"}], "invalid"),
        ([{"action": "add", "path": "a:b", "sha256": "00" * 32}], "invalid-path"),
        ([{"action": "delete", "path": "a", "base_version": 1}, {"action": "delete", "path": "A", "base_version": 1}],
         "path-in-use"),
    ],
)  # fmt: skip
def test_bad_items_are_told(shelve, items, slug):
    assert problem(shelve(items)) == (422, slug)


def test_each_change_is_an_event_and_an_audit_row(api, project, shelve):
    item = {"action": "add", "path": "a", "sha256": project.put(b"a")}
    shelf = shelve([item]).json()["id"]
    project.http.put(f"/shelves/{shelf}/items", json={"items": [item]})
    project.http.post(f"/shelves/{shelf}/unshelve", json={"changelist_id": project.open([])})
    project.http.delete(f"/shelves/{shelf}")
    with psycopg.connect(api.owner_url) as owner:
        kinds = owner.execute(
            "SELECT kind FROM events WHERE project_id = %s AND kind LIKE 'shelf.%%' ORDER BY id", (project.id,)
        ).fetchall()
        audited = owner.execute(
            "SELECT DISTINCT operation FROM audit_log WHERE project_id = %s AND table_name = 'shelves'", (project.id,)
        ).fetchall()
    assert [kind for (kind,) in kinds] == ["shelf.created", "shelf.updated", "shelf.unshelved", "shelf.deleted"]
    assert {operation for (operation,) in audited} == {"INSERT", "UPDATE", "DELETE"}


def test_concurrent_replacements_leave_one_of_them_whole(project, shelve):
    content = project.put(b"a")
    shelf = shelve([{"action": "add", "path": "a", "sha256": content}]).json()["id"]

    def replace(n: int) -> int:
        items = [{"action": "add", "path": f"d{n}/f{m}", "sha256": content} for m in range(50)]
        return project.http.put(f"/shelves/{shelf}/items", json={"items": items}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(replace, range(16))) == {200}
    paths = [item["path"] for item in items_of(project.http, shelf)]
    assert len({path.split("/")[0] for path in paths}) == 1
    assert len(paths) == 50
