"""A merge lands through its gate and in no other way (invariant 10), and the gate looks again."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import errors


@pytest.fixture
def conflicted(merging):
    """A merge whose one conflict waits for a choice."""
    merging.submit("main", [["add", "a", "1"], ["add", "b", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"], ["edit", "b", "2"]])
    merging.submit("main", [["edit", "a", "3"]])
    return merging.work(merging.begin("dev", "main"))


LAND = "UPDATE branch_merges SET status = 'merged', landed_no = 1, completed_at = now() WHERE id = %s"


def as_service(api, project):
    connection = psycopg.connect(api.service_url)
    connection.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
    return connection


def refused(connection, statement, parameters):
    with pytest.raises((errors.RestrictViolation, errors.CheckViolation)), connection.transaction():
        connection.execute(statement, parameters)


def test_the_service_role_cannot_land_it(api, project, merging, conflicted):
    with as_service(api, project) as connection:
        refused(connection, LAND, (conflicted["id"],))
        refused(connection, "UPDATE branch_merges SET completed_at = now() WHERE id = %s", (conflicted["id"],))
        connection.execute(
            """UPDATE merge_jobs SET status = 'completed', submit_gate_passed = job_type = 'submit_gate'
               WHERE merge_id = %s""",
            (conflicted["id"],),
        )
        refused(connection, LAND, (conflicted["id"],))
        connection.execute(
            """UPDATE merge_conflicts SET resolution = 'source', resolved_at = now(), resolved_by = app_user_id()
               WHERE merge_id = %s""",
            (conflicted["id"],),
        )
        connection.execute("UPDATE merge_jobs SET status = 'completed' WHERE merge_id = %s", (conflicted["id"],))
        refused(connection, LAND, (conflicted["id"],))
        refused(
            connection,
            """UPDATE changelists SET status = 'submitted', number = 99, submitted_at = now(), items_count = 1
               WHERE id = %s""",
            (conflicted["changelist_id"],),
        )


def test_its_changelist_is_nobody_elses(merging, conflicted):
    changelist = f"/changelists/{conflicted['changelist_id']}"
    item = {"action": "add", "path": "c", "sha256": merging.put("1")}
    for response in (
        merging.http.post(f"{changelist}/submit"),
        merging.http.post(f"{changelist}/items", json={"items": [item]}),
        merging.http.delete(changelist, headers={"If-Match": "*"}),
    ):
        assert response.status_code == 409, response.text
        assert "merge" in response.json()["detail"]


def test_a_merge_that_was_merged_never_changes(api, project, merging, conflicted):
    merging.resolve(conflicted, "a", "source")
    assert merging.work(conflicted)["status"] == "merged"
    assert merging.http.post(f"/branch-merges/{conflicted['id']}/cancel").json()["type"].endswith("merge-closed")
    with as_service(api, project) as connection:
        refused(connection, "UPDATE branch_merges SET status = 'pending' WHERE id = %s", (conflicted["id"],))
        refused(
            connection,
            """UPDATE merge_conflicts SET resolution = 'target', resolved_at = now(), resolved_by = app_user_id()
               WHERE merge_id = %s""",
            (conflicted["id"],),
        )


def test_without_a_gate_it_stays_staged_until_one_is_asked_for(merging):
    merging.submit("main", [["add", "a", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"]])
    merge = merging.work(merging.begin("dev", "main", submit=False))
    assert (merge["status"], merge["paths_count"]) == ("pending", 1)
    merging.ok("POST", f"/branch-merges/{merge['id']}/jobs", json={"job_type": "submit_gate"})
    assert merging.work(merge)["status"] == "merged"
    assert merging.heads("main") == {"a": "2"}


def test_the_target_moved_and_the_plan_is_renewed(merging):
    merging.submit("main", [["add", "a", "1"], ["add", "b", "1"], ["add", "c", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"], ["edit", "b", "2"], ["edit", "c", "2"]])
    merging.submit("main", [["edit", "a", "3"]])
    merge = merging.work(merging.begin("dev", "main"))
    merging.resolve(merge, "a", "target")
    merging.submit("main", [["edit", "b", "3"]])
    merge = merging.work(merge)
    assert merge["status"] == "conflicted"
    asked = {path: one["resolution"] for path, one in merging.conflicts(merge).items()}
    assert asked == {"a": "target", "b": None}
    merging.resolve(merge, "b", "source")
    assert merging.work(merge)["status"] == "merged"
    assert merging.heads("main") == {"a": "3", "b": "2", "c": "2"}


def test_the_target_moved_so_that_a_choice_has_to_be_made_again(merging, conflicted):
    merging.resolve(conflicted, "a", "source")
    merging.submit("main", [["edit", "a", "4"]])
    merge = merging.work(conflicted)
    assert merge["status"] == "conflicted"
    again = merging.conflicts(merge)["a"]
    assert (again["target"]["version"], again["resolution"]) == (4, None)


def test_a_branch_that_asks_for_a_review_gets_one(merging):
    merging.submit("main", [["add", "a", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"]])
    merging.ok("PATCH", f"/branches/{merging.branches['main']}", json={"require_review": True})
    merge = merging.work(merging.begin("dev", "main", submit=False))
    gate = merging.jobs(merge)["submit_gate"]
    assert (merge["status"], gate["status"]) == ("pending", "failed")
    assert "approvals" in gate["error"]
    reviewer = merging.project.member("reviewer")
    changelist = f"/changelists/{merge['changelist_id']}"
    merging.ok("POST", f"{changelist}/review-requests", json={"reviewers": [reviewer.name]})
    seen = {"If-Match": reviewer.http.get(changelist).headers["etag"]}
    verdict = reviewer.http.put(f"{changelist}/review", json={"verdict": "approved"}, headers=seen)
    assert verdict.status_code == 200, verdict.text
    merging.ok("PATCH", f"/merge-jobs/{gate['id']}", json={"status": "queued"})
    assert merging.work(merge)["status"] == "merged"


def test_somebody_elses_lock_holds_it_back(merging):
    merging.submit("main", [["add", "a", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"]])
    artist = merging.project.member("contributor")
    lock = {"project_id": merging.project.id, "branch_id": merging.branches["main"], "path": "a", "base_version": 1}
    typemap = {"rules": [{"pattern": "**", "scope": "branch"}]}
    merging.ok("PUT", f"/projects/{merging.project.id}/typemap", json=typemap)
    assert artist.http.post("/locks", json=lock).status_code == 201
    merge = merging.work(merging.begin("dev", "main"))
    gate = merging.jobs(merge)["submit_gate"]
    assert gate["status"] == "failed"
    assert artist.name in gate["error"]
    assert merging.heads("main") == {"a": "1"}


def test_ten_merges_into_one_branch_at_once(merging):
    paths = [f"p{n}" for n in range(10)]
    merging.submit("main", [["add", path, "1"] for path in [*paths, "all"]])
    for path in paths:
        merging.branch(f"task-{path}")
        merging.submit(f"task-{path}", [["edit", path, "2"], ["edit", "all", "2"]])
    merges = [merging.begin(f"task-{path}", "main") for path in paths]
    with ThreadPoolExecutor(10) as pool:
        landed = list(pool.map(merging.work, merges))
    assert [merge["status"] for merge in landed] == ["merged"] * 10
    assert merging.heads("main") == dict.fromkeys([*paths, "all"], "2")
    numbers = sorted(merge["landed_no"] for merge in landed)
    assert len(set(numbers)) == 10
