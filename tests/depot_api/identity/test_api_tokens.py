"""API tokens: shown once, never more than what made them, revoked for good."""

from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from psycopg import errors

INSERT = "INSERT INTO api_tokens (user_id, name, token_sha256, scope, expires_at) VALUES (%s, 'x', %s, %s, now())"


def create(http, scope: str = "write", **fields) -> httpx.Response:
    return http.post("/auth/tokens", json={"name": "test", "scope": scope, "expires_in_days": 1} | fields)


def test_a_token_works_until_it_is_revoked(api):
    user = api.user()
    made = create(user.http)
    assert made.status_code == 201, made.text
    token = made.json()
    listed = user.http.get("/auth/tokens").json()["items"]
    assert [one["name"] for one in listed] == ["test", "test"]
    assert listed[1] == {key: value for key, value in token.items() if key != "token"}
    assert token["token"] not in user.http.get("/auth/tokens").text
    with api.client(token["token"]) as http:
        assert http.get("/auth/me").json()["username"] == user.name
        for _ in range(2):
            assert user.http.delete(f"/auth/tokens/{token['id']}").status_code == 204
        assert http.get("/auth/me").status_code == 401
    revoked_at = user.http.get("/auth/tokens").json()["items"][1]["revoked_at"]
    assert user.http.delete(f"/auth/tokens/{token['id']}").status_code == 204
    assert user.http.get("/auth/tokens").json()["items"][1]["revoked_at"] == revoked_at


def test_tokens_come_in_pages(api):
    user = api.user()
    for _ in range(3):
        create(user.http)
    first = user.http.get("/auth/tokens?limit=3").json()
    second = user.http.get("/auth/tokens", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    ids = [one["id"] for one in first["items"] + second["items"]]
    assert (len(ids), second["next_cursor"]) == (4, None)
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("has", "wants", "status"),
    [
        ("admin", "admin", 201),
        ("admin", "write", 201),
        ("admin", "pipeline", 201),
        ("write", "admin", 403),
        ("write", "pipeline", 403),
        ("write", "write", 201),
        ("write", "read", 201),
        ("read", "read", 403),
        ("pipeline", "pipeline", 403),
    ],
)
def test_a_token_makes_none_that_may_do_more(api, has, wants, status):
    made = create(api.user("admin").http, has).json()
    with api.client(made["token"]) as http:
        assert create(http, wants).status_code == status


def test_a_pipeline_gets_its_token_from_a_studio_admin_only(api, project):
    for user in (project.member("contributor"), project.member("owner")):
        refused = create(user.http, "pipeline")
        assert (refused.status_code, "studio admin" in refused.json()["detail"]) == (403, True)
        with psycopg.connect(api.service_url) as connection:
            connection.execute("SELECT set_app_user(%s)", (user.id,))
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(INSERT, (user.id, b"\0" * 32, "pipeline"))
    assert create(api.user("admin").http, "pipeline").status_code == 201


def test_the_database_holds_the_scope(api):
    user = api.user("admin")
    for has, wants in (("write", "admin"), ("read", "write"), ("pipeline", "write"), ("pipeline", "pipeline")):
        with psycopg.connect(api.service_url) as connection:
            connection.execute("SELECT set_app_user(%s, '', %s)", (user.id, has))
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(INSERT, (user.id, b"\0" * 32, wants))


def test_signing_in_makes_any_token(api):
    credentials = {"username": "admin", "password": api.password}
    session = httpx.post(f"{api.url}/auth/token", json=credentials).json()["access_token"]
    with api.client(session) as http:
        assert create(http, "admin").status_code == 201


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_in_days": None},
        {"expires_in_days": 0},
        {"expires_in_days": 10**20},
        {"expires_at": "2999-01-01T00:00:00Z"},
        {"expires_in_days": None, "expires_at": "2001-01-01T00:00:00Z"},
        {"expires_in_days": None, "expires_at": "9999-12-31T23:59:59-14:00"},
        {"expires_in_days": None, "expires_at": "0001-01-01T00:00:00+14:00"},
        {"expires_in_days": None, "expires_at": "2030-01-01T00:00:00"},
        {"name": ""},
        {"scope": "root"},
    ],
)
def test_what_a_token_cannot_be(api, fields):
    assert create(api.user().http, **fields).status_code == 422


def test_an_expiry_can_be_a_time(api):
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = create(api.user().http, expires_in_days=None, expires_at=at)
    assert datetime.fromisoformat(made.json()["expires_at"]) == datetime.fromisoformat(at)


def test_tokens_of_others_are_for_admins(api):
    user, other = api.user(), api.user()
    token = create(user.http).json()
    assert other.http.delete(f"/auth/tokens/{token['id']}").status_code == 404
    assert other.http.get(f"/users/{user.id}/tokens").status_code == 403
    with api.client() as admin:
        assert admin.delete(f"/auth/tokens/{token['id']}").status_code == 404, "not one of the admin's own"
        assert token["id"] in [one["id"] for one in admin.get(f"/users/{user.id}/tokens").json()["items"]]
        assert token["id"] not in admin.get("/auth/tokens").text
        for _ in range(2):
            assert admin.delete(f"/users/{user.id}/tokens/{token['id']}").status_code == 204
    with api.client(token["token"]) as http:
        assert http.get("/auth/me").status_code == 401


def test_a_revoked_token_stays_revoked_in_the_database(api):
    user = api.user()
    token = create(user.http).json()
    user.http.delete(f"/auth/tokens/{token['id']}")
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s)", (user.id,))
        undone = connection.execute("UPDATE api_tokens SET revoked_at = NULL WHERE id = %s", (token["id"],))
        assert undone.rowcount == 0
        live = "UPDATE api_tokens SET revoked_at = NULL WHERE revoked_at IS NULL"
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(live)
