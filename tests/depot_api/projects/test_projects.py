"""Changing projects, removing members, and the archive that nothing gets past."""

import secrets
import threading

import psycopg
import pytest
from psycopg import errors, sql

# Of these a project's rows are written by functions and triggers only.
FUNCTIONS = (
    "SELECT record_blobs(%(project)s, ARRAY[decode(repeat('ab', 32), 'hex')], ARRAY[1], ARRAY[1], ARRAY[1])",
    "SELECT reserve_upload(%(project)s, 1)",
    "SELECT take_storage_snapshot(%(project)s)",
    "SELECT archive_project(%(project)s, 'again')",
)
SEEDS = (
    """INSERT INTO labels (project_id, name, branch_id, at_no, created_by)
       VALUES (%(project)s, 'a', %(branch)s, 1, %(user)s)""",
    "INSERT INTO workspaces (project_id, branch_id, owner_id, name) VALUES (%(project)s, %(branch)s, %(user)s, 'a')",
    """INSERT INTO workspace_files (project_id, workspace_id, path_key, path, asset_id, version)
       SELECT w.project_id, w.id, a.path_key, a.path, a.id, 1 FROM workspaces w JOIN assets a USING (project_id)
       WHERE w.project_id = %(project)s LIMIT 1""",
    """INSERT INTO locks (project_id, path_key, path, holder_id, expires_at)
       VALUES (%(project)s, 'locked', 'locked', %(user)s, now() + interval '1 day')""",
    "INSERT INTO shelves (project_id, branch_id, owner_id) VALUES (%(project)s, %(branch)s, %(user)s)",
    """INSERT INTO shelf_items (project_id, shelf_id, path_key, path, action, base_version)
       SELECT project_id, id, 'a', 'a', 'delete', 1 FROM shelves WHERE project_id = %(project)s""",
    """INSERT INTO reviews (project_id, changelist_id, reviewer_id)
       SELECT project_id, id, %(user)s FROM changelists WHERE project_id = %(project)s AND status = 'open'""",
    """INSERT INTO branch_merges (project_id, source_branch_id, target_branch_id, source_at, created_by)
       VALUES (%(project)s, %(branch)s, %(other)s, 0, %(user)s)""",
    """INSERT INTO merge_conflicts (project_id, merge_id, path_key, path, kind)
       SELECT project_id, id, 'a', 'a', 'both_edited' FROM branch_merges WHERE project_id = %(project)s""",
    """INSERT INTO merge_jobs (project_id, merge_id, job_type)
       SELECT project_id, id, 'submit_gate' FROM branch_merges WHERE project_id = %(project)s""",
)


def archive(http, project, reason="done"):
    return http.post(f"/projects/{project.id}/archive", json={"reason": reason})


def test_a_project_is_changed_by_its_managers(project):
    manager, lead = project.member("manager"), project.member("lead")
    change = {"name": f"renamed-{secrets.token_hex(4)}", "description": "new", "status": "on_hold", "quota_bytes": 5}
    assert lead.http.patch(f"/projects/{project.id}", json=change).status_code == 403
    changed = manager.http.patch(f"/projects/{project.id}", json=change)
    assert changed.status_code == 200, changed.text
    assert {key: changed.json()[key] for key in change} == change
    partly = manager.http.patch(f"/projects/{project.id}", json={"status": "active"}).json()
    assert (partly["status"], partly["quota_bytes"], partly["name"]) == ("active", 5, change["name"])
    assert manager.http.patch(f"/projects/{project.id}", json={"quota_bytes": None}).json()["quota_bytes"] is None
    assert project.api.user().http.patch(f"/projects/{project.id}", json=change).status_code == 404


@pytest.mark.parametrize(
    "change",
    [{"status": "archived"}, {"quota_bytes": 0}, {"quota_bytes": 2**63}, {"quota_bytes": "1"}, {"name": ""}, {"id": 1}],
)
def test_what_a_project_cannot_become(project, change):
    assert project.http.patch(f"/projects/{project.id}", json=change).status_code == 422


def test_a_name_stays_unique(project, new_project):
    refused = project.http.patch(f"/projects/{project.id}", json={"name": new_project().name.upper()})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (409, "/name")


def test_members_are_removed_by_managers_and_an_owner_stays(project):
    member, manager = project.member("viewer"), project.member("manager")
    members = f"/projects/{project.id}/members"
    me = project.http.get("/auth/me").json()["id"]
    assert member.http.delete(f"{members}/{manager.id}").status_code == 403
    assert manager.http.delete(f"{members}/{me}").status_code == 403
    assert manager.http.delete(f"{members}/{member.id}").status_code == 204
    assert manager.http.delete(f"{members}/{member.id}").status_code == 404
    assert member.http.get(f"/projects/{project.id}").status_code == 404
    assert project.http.delete(f"{members}/{me}").status_code == 409
    other = project.member("owner")
    assert other.http.delete(f"{members}/{me}").status_code == 204


def test_archiving_writes_a_summary_that_nobody_changes(api, project):
    project.add("a", b"one")
    project.submit([{"action": "edit", "path": "a", "base_version": 1, "sha256": project.put(b"three")}])
    manager, lead = project.member("manager"), project.member("lead")
    assert archive(lead.http, project).status_code == 403
    assert archive(manager.http, project, "").status_code == 422
    made = archive(manager.http, project, "shipped")
    assert made.status_code == 201, made.text
    summary = made.json()
    counts = {key: summary[key] for key in ("assets", "versions", "branches", "changelists", "objects", "used_bytes")}
    assert counts == {"assets": 1, "versions": 2, "branches": 1, "changelists": 2, "objects": 2, "used_bytes": 8}
    assert (summary["archived_by"], summary["reason"]) == (manager.id, "shipped")
    again = archive(manager.http, project)
    assert (again.status_code, again.json()["type"].rsplit(":")[-1]) == (409, "project-archived")
    assert lead.http.get(f"/projects/{project.id}/archives").json()["items"] == [summary]
    for statement in ("UPDATE project_archives SET reason = 'x'", "DELETE FROM project_archives"):
        with psycopg.connect(api.owner_url) as owner, pytest.raises(errors.RestrictViolation):
            owner.execute(statement)
        with psycopg.connect(api.service_url) as service, pytest.raises(errors.InsufficientPrivilege):
            service.execute(statement)


def test_an_archived_project_can_be_read_and_comes_back(project):
    project.add("a", b"one")
    assert project.http.post(f"/projects/{project.id}/unarchive").status_code == 409
    assert archive(project.http, project).status_code == 201
    assert list(project.heads()) == ["a"]
    for method, path, body in (
        ("PATCH", f"/projects/{project.id}", {"name": "x"}),
        ("POST", f"/projects/{project.id}/members", {"username": "admin", "role": "owner"}),
        ("POST", "/branches", {"project_id": project.id, "name": "x"}),
        ("POST", f"/projects/{project.id}/storage/snapshots", None),
    ):
        refused = project.http.request(method, path, json=body)
        assert (refused.status_code, refused.json()["type"].rsplit(":")[-1]) == (409, "project-archived"), path
    lead = project.api.user()
    assert lead.http.post(f"/projects/{project.id}/unarchive").status_code == 404
    assert project.http.post(f"/projects/{project.id}/unarchive").json()["status"] == "active"
    project.add("b", b"two")
    assert archive(project.http, project).status_code == 201
    archives = project.http.get(f"/projects/{project.id}/archives?limit=1").json()
    assert (archives["items"][0]["assets"], archives["next_cursor"] is None) == (1, False)


def test_archive_and_return_are_events(api, project):
    archive(project.http, project, "shipped")
    project.http.post(f"/projects/{project.id}/unarchive")
    with psycopg.connect(api.owner_url) as owner:
        rows = owner.execute("SELECT kind FROM events WHERE project_id = %s ORDER BY id", (project.id,)).fetchall()
    assert [row[0] for row in rows][-2:] == ["project.archived", "project.unarchived"]


def test_the_database_refuses_every_write_to_an_archived_project(api, project):
    """As the service's role and a studio admin, in every table that has a project's rows."""
    project.add("a", b"one")
    project.open([{"action": "add", "path": "b", "sha256": project.put(b"two")}])
    other = project.http.post("/branches", json={"project_id": project.id, "name": "other"}).json()["id"]
    names = {
        "project": project.id,
        "branch": project.main,
        "other": other,
        "user": project.http.get("/auth/me").json()["id"],
    }
    with psycopg.connect(api.owner_url) as owner:
        for seed in SEEDS:
            owner.execute(seed, names)
    writable_before = _writes(api, names)
    assert writable_before >= {("events", "INSERT"), ("asset_versions", "INSERT"), ("locks", "DELETE")}
    assert {table for table, operation in writable_before if operation == "UPDATE"} >= {
        "projects", "project_members", "branches", "changelists", "changelist_items", "assets", "labels", "workspaces",
        "workspace_files", "locks", "shelves", "branch_merges", "merge_conflicts", "merge_jobs",
    }  # fmt: skip
    assert archive(project.http, project).status_code == 201
    assert _writes(api, names) == set()
    for function in FUNCTIONS:
        with psycopg.connect(api.service_url) as service:
            service.execute("SELECT set_app_user(%s)", (names["user"],))
            with pytest.raises(errors.InsufficientPrivilege):
                service.execute(function, names)


def _writes(api, names: dict[str, str]) -> set[tuple[str, str]]:
    """(table, operation) that the service's role gets done on the project's rows. Nothing is kept."""
    done = set()
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (names["user"],))
        tables = service.execute(
            """SELECT t.relname, coalesce(array_agg(c.attname::text) FILTER (
                   WHERE has_column_privilege(t.oid, c.attnum, 'UPDATE')), '{}')
               FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped
               WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r'
               GROUP BY t.relname HAVING t.relname = 'projects' OR 'project_id' = ANY (array_agg(c.attname))
               ORDER BY t.relname"""
        ).fetchall()
        assert len(tables) > 20
        for table, columns in tables:
            key = "id" if table == "projects" else "project_id"
            same = sql.SQL(", ").join(sql.SQL("{0} = {0}").format(sql.Identifier(column)) for column in columns)
            statements = {
                "INSERT": sql.SQL("INSERT INTO {table} ({key}) VALUES (%(project)s)"),
                "UPDATE": sql.SQL("UPDATE {table} SET {same} WHERE {key} = %(project)s"),
                "DELETE": sql.SQL("DELETE FROM {table} WHERE {key} = %(project)s"),
            }
            if not columns:
                del statements["UPDATE"]
            for operation, statement in statements.items():
                composed = statement.format(table=sql.Identifier(table), key=sql.Identifier(key), same=same)
                if _takes_effect(service, composed, names):
                    done.add((table, operation))
        service.rollback()
    return done


def _takes_effect(service: psycopg.Connection, statement: sql.Composed, names: dict[str, str]) -> bool:
    try:
        with service.transaction(force_rollback=True):
            return service.execute(statement, names).rowcount > 0
    except errors.InsufficientPrivilege:
        return False
    except psycopg.IntegrityError:
        return True  # policies come before constraints: they let the row through


def test_submits_that_race_with_archiving_are_in_the_summary_or_undone(api, project):
    changelists = [
        project.open([{"action": "add", "path": f"f{n}", "sha256": project.put(b"%d" % n)}]) for n in range(12)
    ]
    answers: list[int] = []
    barrier = threading.Barrier(4)

    def submit(mine):
        with api.client() as http:
            barrier.wait()
            answers.extend(http.post(f"/changelists/{one}/submit").status_code for one in mine)

    threads = [threading.Thread(target=submit, args=(changelists[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    barrier.wait()
    summary = archive(project.http, project).json()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 403, 409}, answers
    assert summary["changelists"] == summary["versions"] == answers.count(200) == len(project.heads())
