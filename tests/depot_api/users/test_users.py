"""Users are the admins' to manage; nobody raises themselves, and there is always an admin left."""

import secrets
import threading
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import errors

PASSWORD = "long-enough-1"


def create(http, **fields):
    wanted = {"username": f"made-{secrets.token_hex(4)}", "password": PASSWORD} | fields
    return http.post("/users", json=wanted)


def sign_in(api, username: str, password: str) -> httpx.Response:
    return httpx.post(f"{api.url}/auth/token", json={"username": username, "password": password})


@pytest.fixture
def admin(api):
    with api.client() as http:
        yield http


def test_a_created_user_signs_in_and_is_listed(api, admin):
    made = create(admin, display_name="Ada", studio_role="editor")
    assert made.status_code == 201, made.text
    user = made.json()
    assert (user["display_name"], user["studio_role"], user["is_active"]) == ("Ada", "editor", True)
    assert "password" not in made.text
    assert admin.get(f"/users/{user['id']}").json() == user
    assert admin.get("/users", params={"name": user["username"][2:].upper()}).json()["items"] == [user]
    assert sign_in(api, user["username"], PASSWORD).status_code == 200
    taken = create(admin, username=user["username"].upper())
    assert (taken.status_code, taken.json()["errors"][0]["pointer"]) == (409, "/username")


def test_users_come_in_pages(admin):
    prefix = f"page-{secrets.token_hex(4)}"
    for number in range(5):
        assert create(admin, username=f"{prefix}-{number}").status_code == 201
    names, cursor = [], None
    while True:
        query = {"name": prefix, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = admin.get("/users", params=query).json()
        names += [user["username"] for user in page["items"]]
        if not (cursor := page["next_cursor"]):
            break
    assert names == [f"{prefix}-{number}" for number in range(5)]


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "too-short"},
        {"password": "x" * 1025},
        {"password": "twelve-or-\x00-more"},
        {"username": ""},
        {"username": "with space"},
        {"username": "line\nbreak"},
        {"display_name": "two\nlines"},
        {"display_name": "\x00"},
        {"studio_role": "god"},
        {"is_active": True},
    ],
)
def test_what_a_user_cannot_be(admin, fields):
    refused = create(admin, **fields)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["pointer"] == "/" + next(iter(fields))


@pytest.mark.parametrize("studio_role", ["viewer", "editor"])
def test_only_admins_manage_users(api, studio_role):
    user = api.user(studio_role)
    for method, path, body in (
        ("POST", "/users", {"username": "x", "password": PASSWORD}),
        ("GET", "/users", None),
        ("GET", f"/users/{user.id}", None),
        ("PATCH", f"/users/{user.id}", {"studio_role": "admin"}),
        ("POST", f"/users/{user.id}/password", {"password": PASSWORD}),
        ("GET", f"/users/{user.id}/tokens", None),
        ("DELETE", f"/users/{user.id}/tokens/{user.id}", None),
    ):
        assert user.http.request(method, path, json=body).status_code == 403, (method, path)


def test_an_admins_token_needs_the_scope_admin_for_users(api):
    admin = api.user("admin")
    made = admin.http.post("/auth/tokens", json={"name": "w", "scope": "write", "expires_in_days": 1}).json()
    with api.client(made["token"]) as http:
        assert http.get("/auth/me").status_code == 200
        assert http.get("/users").status_code == 403
        assert create(http).status_code == 403
        change = {"current_password": PASSWORD, "new_password": PASSWORD}
        assert http.post("/auth/password", json=change).status_code == 403


def test_a_deactivated_user_is_out_at_once_and_can_come_back(api, admin):
    user = api.user("editor")
    assert user.http.get("/projects").status_code == 200
    assert admin.patch(f"/users/{user.id}", json={"is_active": False}).json()["is_active"] is False
    assert user.http.get("/projects").status_code == 401
    assert admin.patch(f"/users/{user.id}", json={"is_active": True, "display_name": "Back"}).status_code == 200
    assert user.http.get("/projects").status_code == 401  # the token was revoked with the account
    assert admin.post(f"/users/{user.id}/password", json={"password": PASSWORD}).status_code == 204
    assert sign_in(api, user.name, PASSWORD).status_code == 200
    assert admin.get(f"/users/{user.id}").json()["display_name"] == "Back"


def test_passwords_are_reset_by_admins_and_changed_by_their_owner(api, admin):
    user = create(admin).json()
    reset = admin.post(f"/users/{user['id']}/password", json={"password": "reset-by-admin"})
    assert reset.status_code == 204
    assert sign_in(api, user["username"], PASSWORD).status_code == 401
    token = sign_in(api, user["username"], "reset-by-admin").json()["access_token"]
    with api.client(token) as http:
        wrong = http.post("/auth/password", json={"current_password": "wrong", "new_password": "changed-by-me"})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/current_password")
        short = http.post("/auth/password", json={"current_password": "reset-by-admin", "new_password": "short"})
        assert short.status_code == 422
        right = http.post(
            "/auth/password", json={"current_password": "reset-by-admin", "new_password": "changed-by-me"}
        )
        assert right.status_code == 204
    assert sign_in(api, user["username"], "changed-by-me").status_code == 200
    assert admin.post(f"/users/{uuid4()}/password", json={"password": PASSWORD}).status_code == 404


def test_a_password_ends_the_sessions_before_it_and_a_reset_the_tokens_too(api, admin):
    user = create(admin).json()

    def session(password: str) -> httpx.Client:
        return api.client(sign_in(api, user["username"], password).json()["access_token"])

    def is_in(http: httpx.Client) -> bool:
        return http.get("/auth/me").status_code == 200

    first = session(PASSWORD)
    token = first.post("/auth/tokens", json={"name": "ci", "scope": "admin", "expires_in_days": 3650}).json()["token"]
    change = {"current_password": PASSWORD, "new_password": "changed-by-me"}
    assert first.post("/auth/password", json=change).status_code == 204
    second = session("changed-by-me")
    assert (is_in(first), is_in(second), is_in(api.client(token))) == (False, True, True)
    reset = admin.post(f"/users/{user['id']}/password", json={"password": "reset-by-admin"})
    assert reset.status_code == 204
    assert (is_in(second), is_in(session("reset-by-admin")), is_in(api.client(token))) == (False, True, False)


def test_guessing_the_current_password_is_slowed(own_api):
    user = own_api.user()
    guess = {"current_password": "wrong", "new_password": PASSWORD}
    answers = [user.http.post("/auth/password", json=guess).status_code for _ in range(8)]
    assert answers[:5] == [422] * 5
    assert answers[-1] == 429


def test_the_last_active_admin_stays(own_api):
    with own_api.client() as http:
        me = http.get("/auth/me").json()["id"]
        for change in ({"studio_role": "editor"}, {"is_active": False}):
            refused = http.patch(f"/users/{me}", json=change)
            assert (refused.status_code, "last active admin" in refused.json()["detail"]) == (409, True)
        other = own_api.user("admin")
        assert http.patch(f"/users/{me}", json={"studio_role": "editor"}).status_code == 200
        assert http.patch(f"/users/{other.id}", json={"studio_role": "viewer"}).status_code == 403
    with psycopg.connect(own_api.owner_url) as owner, pytest.raises(errors.RestrictViolation):
        owner.execute("UPDATE users SET is_active = false WHERE studio_role = 'admin'")


def test_two_admins_who_demote_each_other_do_not_both_succeed(own_api):
    one, two = own_api.user("admin"), own_api.user("admin")
    with own_api.client() as http:
        me = http.get("/auth/me").json()["id"]
        assert one.http.patch(f"/users/{me}", json={"is_active": False}).status_code == 200
    statuses: list[int] = []
    barrier = threading.Barrier(2)

    def demote(actor, target):
        barrier.wait()
        statuses.append(actor.http.patch(f"/users/{target.id}", json={"studio_role": "viewer"}).status_code)

    threads = [threading.Thread(target=demote, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(200) == 1, statuses
    with psycopg.connect(own_api.owner_url) as owner:
        count = owner.execute("SELECT count(*) FROM users WHERE studio_role = 'admin' AND is_active").fetchone()
    assert count == (1,)


def test_the_database_refuses_what_the_routes_refuse(api):
    editor, victim = api.user("editor"), api.user("admin")
    for statement, parameters in (
        ("SELECT create_user('eve', '', 'hash', 'admin')", ()),
        ("SELECT update_user(%s, NULL, 'admin', NULL)", (editor.id,)),
        ("SELECT set_password_hash(%s, 'mine')", (victim.id,)),
        ("UPDATE users SET studio_role = 'admin' WHERE id = %s", (editor.id,)),
        ("INSERT INTO users (username, studio_role) VALUES ('eve', 'admin')", ()),
        ("SELECT password_hash FROM users", ()),
    ):
        with psycopg.connect(api.service_url) as connection:
            connection.execute("SELECT set_app_user(%s)", (editor.id,))
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement, parameters)
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("SELECT set_app_user(%s)", (editor.id,))
        with pytest.raises(errors.InsufficientPrivilege):
            owner.execute("UPDATE users SET studio_role = 'admin' WHERE id = %s", (editor.id,))


def test_an_admin_acts_with_a_small_token_as_nobody_in_the_database(api):
    admin = api.user("admin")
    with psycopg.connect(api.service_url) as connection:
        connection.execute("SELECT set_app_user(%s, '', 'write')", (admin.id,))
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT update_user(%s, 'x', NULL, NULL)", (admin.id,))


def test_changes_of_users_are_audited_without_hashes(api, admin):
    user = create(admin).json()
    admin.patch(f"/users/{user['id']}", json={"studio_role": "editor"})
    with psycopg.connect(api.owner_url) as owner:
        rows = owner.execute(
            """SELECT operation, after ->> 'studio_role', after ? 'password_hash', actor_id IS NOT NULL FROM audit_log
               WHERE table_name = 'users' AND after ->> 'id' = %s ORDER BY id""",
            (user["id"],),
        ).fetchall()
    assert rows == [("INSERT", "viewer", False, True), ("UPDATE", "editor", False, True)]
