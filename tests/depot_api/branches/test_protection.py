"""Protection: who may submit to a branch, and what must pass before."""

import psycopg
import pytest


def test_a_lead_protects_and_submit_obeys(project):
    lead, contributor = project.member("lead"), project.member("contributor")
    content = project.put(b"x")
    branch = f"/branches/{project.main}"
    wanted = {"submit_role": "lead", "description": "What ships."}
    assert contributor.http.patch(branch, json=wanted).status_code == 403
    assert project.api.user("editor").http.patch(branch, json=wanted).status_code == 404
    answer = lead.http.patch(branch, json=wanted).json()
    assert {key: answer[key] for key in wanted} == wanted
    assert (answer["require_review"], answer["require_validation"]) == (False, False)
    add = [{"action": "add", "path": "a", "sha256": content}]
    contributor.http.put(f"/projects/{project.id}/objects/{content}", content=b"x")
    changelist = project.open(add, http=contributor.http)
    assert contributor.http.post(f"/changelists/{changelist}/submit").status_code == 403
    lead.http.patch(branch, json={"submit_role": "contributor", "require_review": True})
    assert contributor.http.post(f"/changelists/{changelist}/submit").json()["type"].endswith("review-required")
    lead.http.patch(branch, json={"require_review": False})
    assert contributor.http.post(f"/changelists/{changelist}/submit").status_code == 200


@pytest.mark.parametrize(
    "body", [{"submit_role": "viewer"}, {"submit_role": "king"}, {"require_review": 7}, {"head_no": 1}]
)
def test_what_makes_no_sense_is_refused(project, body):
    assert project.http.patch(f"/branches/{project.main}", json=body).status_code == 422


def test_the_database_refuses_it_of_a_contributor(api, project):
    contributor = project.member("contributor")
    with psycopg.connect(api.service_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT set_app_user(%s)", (contributor.id,))
        connection.execute("UPDATE branches SET require_review = true WHERE id = %s", (project.main,))


def test_a_change_is_audited_and_told(api, project):
    project.http.patch(f"/branches/{project.main}", json={"require_validation": True})
    with psycopg.connect(api.owner_url) as owner:
        audited = owner.execute(
            """SELECT before -> 'require_validation', after -> 'require_validation' FROM audit_log
               WHERE table_name = 'branches' AND operation = 'UPDATE' AND project_id = %s""",
            (project.id,),
        ).fetchall()
        told = owner.execute(
            "SELECT payload -> 'require_validation' FROM events WHERE project_id = %s AND kind = 'branch.updated'",
            (project.id,),
        ).fetchall()
    assert (audited, told) == ([(False, True)], [(True,)])
