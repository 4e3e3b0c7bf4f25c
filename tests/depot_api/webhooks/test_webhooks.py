"""Who may make webhooks and see them, and that a secret is shown once."""

import json

import psycopg
import pytest

NIL = "00000000-0000-0000-0000-000000000000"
URL = "https://hooks.example.invalid/depot"


def make(project, http=None):
    return (http or project.http).post(f"/projects/{project.id}/webhooks", json={"url": URL})


def test_a_secret_is_shown_once(api, project):
    made = make(project).json()
    assert made["secret"].startswith("whsec_")
    url = f"/projects/{project.id}/webhooks"
    shown = [project.http.get(f"{url}/{made['id']}").json(), *project.http.get(url).json()["items"]]
    assert shown == [{key: value for key, value in made.items() if key != "secret"}] * 2
    audit = project.http.get(f"/projects/{project.id}/audit").text
    assert (URL in audit, made["secret"] in audit) == (True, False)
    assert made["secret"] not in json.dumps(project.http.get(f"/projects/{project.id}/events").json())


def test_update_and_delete(project):
    made = make(project).json()
    url = f"/projects/{project.id}/webhooks/{made['id']}"
    changed = project.http.patch(url, json={"kinds": ["branch.created"]}).json()
    assert (changed["kinds"], changed["url"], changed["is_active"]) == (["branch.created"], URL, True)
    assert project.http.delete(url).status_code == 204
    assert project.http.get(url).status_code == 404
    kinds = [event["kind"] for event in project.http.get(f"/projects/{project.id}/events").json()["items"]]
    assert kinds[-3:] == ["webhook.created", "webhook.updated", "webhook.deleted"]


def test_pages(project):
    ids = [make(project).json()["id"] for _ in range(3)]
    first = project.http.get(f"/projects/{project.id}/webhooks", params={"limit": 2}).json()
    query = {"limit": 2, "cursor": first["next_cursor"]}
    second = project.http.get(f"/projects/{project.id}/webhooks", params=query).json()
    assert [one["id"] for one in first["items"] + second["items"]] == ids
    assert second["next_cursor"] is None


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("lead", 403), ("manager", 201), ("owner", 201)])
def test_roles(project, role, status):
    member = project.member(role)
    assert make(project, member.http).status_code == status
    seen = member.http.get(f"/projects/{project.id}/webhooks").status_code
    assert seen == (200 if status == 201 else 403)


def test_another_tenants_webhook_is_not_there(api, project, new_project):
    made = make(project).json()
    other = new_project()
    manager = other.member("manager")
    for project_id in (project.id, other.id):
        base = f"/projects/{project_id}/webhooks/{made['id']}"
        assert manager.http.get(base).status_code == 404
        assert manager.http.patch(base, json={"is_active": False}).status_code == 404
        assert manager.http.delete(base).status_code == 404
        assert manager.http.get(f"{base}/deliveries").status_code == 404
        assert manager.http.post(f"{base}/deliveries/{NIL}/replay").status_code == 404
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (manager.id,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute("SELECT set_webhook_secret(%s, %s)", (made["id"], "x" * 32))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "ftp://a/"},
        {"url": "http://"},
        {"url": "http://user:secret@example.com/"},
        {"url": "http://example.com:99999/"},
        {"url": "http://exa mple.com/"},
        {"url": "http://[::1/"},
        {"url": "http://example.com/\u0000"},
        {"url": "http://example.com/" + "x" * 3000},
        {"url": URL, "kinds": ["no.such"]},
        {"url": URL, "secret": "mine"},
        {"url": 5},
    ],
)
def test_bad_bodies(project, body):
    response = project.http.post(f"/projects/{project.id}/webhooks", json=body)
    assert response.status_code == 422, response.text
