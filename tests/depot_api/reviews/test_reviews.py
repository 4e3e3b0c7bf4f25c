"""Reviews: who is asked, who decides, and that a verdict is on what was seen."""

import psycopg
import pytest
from psycopg import errors


def slug(response):
    return response.status_code, response.json()["type"].removeprefix("urn:asset-depot:problem:")


@pytest.fixture
def author(project):
    project.http.patch(f"/branches/{project.main}", json={"require_review": True})
    return project.member("contributor")


def opened(project, author, path="a"):
    sha256 = project.put(path.encode())
    response = author.http.put(f"/projects/{project.id}/objects/{sha256}", content=path.encode())
    assert response.status_code == 201
    return project.open([{"action": "add", "path": path, "sha256": sha256}], http=author.http)


def ask(author, changelist, *reviewers):
    return author.http.post(
        f"/changelists/{changelist}/review-requests", json={"reviewers": [r.name for r in reviewers]}
    )


def etag(user, changelist):
    return user.http.get(f"/changelists/{changelist}").headers["etag"]


def decide(user, changelist, verdict, comment="", seen=None):
    headers = {"If-Match": seen or etag(user, changelist)}
    body = {"verdict": verdict, "comment": comment}
    return user.http.put(f"/changelists/{changelist}/review", json=body, headers=headers)


def submit(author, changelist):
    return author.http.post(f"/changelists/{changelist}/submit")


def test_submit_waits_for_an_approval_of_what_is_submitted(project, author):
    reviewer = project.member("reviewer")
    changelist = opened(project, author)
    assert slug(submit(author, changelist)) == (409, "review-required")
    assert slug(decide(reviewer, changelist, "approved")) == (409, "changelist-closed")
    asked = ask(author, changelist, reviewer)
    assert (asked.status_code, asked.json()["status"]) == (200, "pending_review")
    waiting = reviewer.http.get("/reviews/pending").json()["items"]
    assert [(r["changelist_id"], r["verdict"]) for r in waiting] == [(changelist, "pending")]
    assert slug(decide(author, changelist, "approved")) == (403, "forbidden")
    assert decide(reviewer, changelist, "changes_requested", "too dark").json()["verdict"] == "changes_requested"
    assert slug(submit(author, changelist)) == (409, "review-required")
    assert decide(reviewer, changelist, "approved").status_code == 200
    content = b"lighter"
    sha256 = project.put(content)
    author.http.put(f"/projects/{project.id}/objects/{sha256}", content=content)
    item = {"action": "add", "path": "a", "sha256": sha256}
    author.http.post(f"/changelists/{changelist}/items", json={"items": [item]})
    assert slug(submit(author, changelist)) == (409, "review-required")
    (review,) = author.http.get("/reviews", params={"changelist_id": changelist}).json()["items"]
    assert (review["verdict"], review["decided_at"], review["reviewer"]) == ("pending", None, reviewer.name)
    decide(reviewer, changelist, "approved")
    assert submit(author, changelist).status_code == 200
    assert slug(decide(reviewer, changelist, "changes_requested")) == (409, "changelist-closed")
    assert reviewer.http.get("/reviews/pending").json()["items"] == []


def test_the_branch_says_whose_approvals_count_and_how_many(project, author):
    wanted = {"approve_role": "lead", "required_approvals": 2}
    assert project.http.patch(f"/branches/{project.main}", json=wanted).status_code == 200
    leads, reviewer = [project.member("lead"), project.member("lead")], project.member("reviewer")
    changelist = opened(project, author)
    ask(author, changelist)
    for user in (reviewer, leads[0]):
        assert decide(user, changelist, "approved").status_code == 200
    assert slug(submit(author, changelist)) == (409, "review-required")
    decide(leads[1], changelist, "approved")
    assert submit(author, changelist).status_code == 200


@pytest.mark.parametrize("body", [{"approve_role": "viewer"}, {"required_approvals": 0}, {"required_approvals": 11}])
def test_protection_that_nobody_could_mean(project, body):
    assert slug(project.http.patch(f"/branches/{project.main}", json=body)) == (422, "invalid")


def test_reviewers_are_members_who_may_review(project, author):
    changelist = opened(project, author)
    for unfit in (project.member("viewer"), project.api.user(), author):
        response = ask(author, changelist, unfit)
        assert slug(response) == (422, "invalid")
        assert response.json()["errors"] == [{"detail": unfit.name, "pointer": "/reviewers/0"}]
    assert ask(project.member("lead"), changelist).status_code == 403


def test_nobody_approves_their_own_work_in_the_database_either(project, author):
    changelist = opened(project, author)
    ask(author, changelist)
    with psycopg.connect(project.api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (author.id,))
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute(
                "INSERT INTO reviews (project_id, changelist_id, reviewer_id, verdict) VALUES (%s, %s, %s, 'approved')",
                (project.id, changelist, author.id),
            )


def test_nobody_speaks_for_another_reviewer(project, author):
    reviewer, other = project.member("reviewer"), project.member("reviewer")
    changelist = opened(project, author)
    ask(author, changelist, reviewer)
    with psycopg.connect(project.api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (other.id,))
        changed = service.execute("UPDATE reviews SET verdict = 'approved' WHERE changelist_id = %s", (changelist,))
        assert changed.rowcount == 0


def test_a_verdict_is_on_the_state_that_was_seen(project, author):
    reviewer = project.member("reviewer")
    changelist = opened(project, author)
    ask(author, changelist, reviewer)
    url, seen = f"/changelists/{changelist}/review", etag(reviewer, changelist)
    assert slug(reviewer.http.put(url, json={"verdict": "approved"})) == (428, "precondition-required")
    other = {"items": [{"action": "delete", "path": "other", "base_version": 1}]}
    assert author.http.post(f"/changelists/{changelist}/items", json=other).status_code == 200
    assert slug(decide(reviewer, changelist, "approved", seen=seen)) == (412, "stale-precondition")
    assert decide(reviewer, changelist, "approved").status_code == 200


def test_a_verdict_and_a_change_wait_for_each_other(project, author):
    """A reviewer who is being answered has seen what is there until the answer is written."""
    reviewer = project.member("reviewer")
    changelist = opened(project, author)
    ask(author, changelist, reviewer)
    with psycopg.connect(project.api.service_url) as service, psycopg.connect(project.api.service_url) as other:
        service.execute("SELECT set_app_user(%s)", (reviewer.id,))
        service.execute("SELECT hold_for_verdict(%s)", (changelist,))
        other.execute("SELECT set_app_user(%s)", (author.id,))
        with pytest.raises(errors.LockNotAvailable):
            other.execute("SELECT FROM changelists WHERE id = %s FOR UPDATE NOWAIT", (changelist,))


def test_an_approval_for_one_branch_is_none_for_another(project, author):
    open_branch = project.http.post("/branches", json={"project_id": project.id, "name": "dev"}).json()["id"]
    reviewer, content = project.member("reviewer"), b"for dev"
    sha256 = project.put(content)
    author.http.put(f"/projects/{project.id}/objects/{sha256}", content=content)
    item = {"action": "add", "path": "a", "sha256": sha256}
    changelist = project.open([item], branch=open_branch, http=author.http)
    ask(author, changelist, reviewer)
    decide(reviewer, changelist, "approved")
    headers = {"If-Match": etag(author, changelist)}
    moved = author.http.patch(f"/changelists/{changelist}", json={"branch_id": project.main}, headers=headers)
    assert moved.status_code == 200
    assert slug(submit(author, changelist)) == (409, "review-required")
    decide(reviewer, changelist, "approved")
    headers = {"If-Match": moved.headers["etag"]}
    described = author.http.patch(f"/changelists/{changelist}", json={"description": "same"}, headers=headers)
    assert described.status_code == 200
    assert submit(author, changelist).status_code == 200, "a description is no other content"


def test_the_objection_of_somebody_who_reviews_no_more_holds_nothing_up(project, author):
    gone, demoted, reviewer = (project.member("reviewer") for _ in range(3))
    changelist = opened(project, author)
    ask(author, changelist)
    for user in (gone, demoted):
        decide(user, changelist, "changes_requested")
    decide(reviewer, changelist, "approved")
    assert project.http.delete(f"/projects/{project.id}/members/{gone.id}").status_code == 204
    assert slug(submit(author, changelist)) == (409, "review-required")
    viewer = {"username": demoted.name, "role": "viewer"}
    assert project.http.post(f"/projects/{project.id}/members", json=viewer).status_code == 200
    assert submit(author, changelist).status_code == 200


def test_comments_are_kept_in_order_and_never_change(project, author):
    changelist, reviewer = opened(project, author), project.member("reviewer")
    url = f"/changelists/{changelist}/comments"
    for body in ({"body": "whole"}, {"body": "this one", "path": "a"}):
        assert reviewer.http.post(url, json=body).status_code == 201
    assert slug(reviewer.http.post(url, json={"body": "x", "path": "../a"})) == (422, "invalid-path")
    assert project.member("viewer").http.post(url, json={"body": "x"}).status_code == 403
    first = author.http.get(url, params={"limit": 1}).json()
    second = author.http.get(url, params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [page["items"][0]["body"] for page in (first, second)] == ["whole", "this one"]
    assert project.api.user().http.get(url).status_code == 404
