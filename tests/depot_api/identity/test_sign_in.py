"""Who gets in, and who is told what."""

import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import httpx
import psycopg
import pytest

from depot_api.identity import passwords
from depot_api.identity.passwords import hash_password, password_matches
from depot_api.identity.tokens import issue_access_token, read_access_token

SECRET = "a secret of tests, 32 characters or more"


def test_a_password_gives_a_token_that_works(api):
    credentials = {"username": "admin", "password": api.password}
    for answer in (
        httpx.post(f"{api.url}/auth/token", json=credentials),
        httpx.post(f"{api.url}/auth/token", data=credentials),
    ):
        assert answer.status_code == 200, answer.text
        with api.client(answer.json()["access_token"]) as http:
            assert http.get("/auth/me").json()["studio_role"] == "admin"


def test_wrong_password_and_unknown_user_answer_alike_and_are_slowed(own_api):
    def attempt(username: str) -> httpx.Response:
        return httpx.post(f"{own_api.url}/auth/token", json={"username": username, "password": "wrong"})

    known, unknown = attempt("admin"), attempt("nobody")
    assert known.status_code == unknown.status_code == 401
    assert known.json() == unknown.json()
    # The wait doubles, so that a machine of any speed meets it.
    slowed = next(answer for answer in iter(lambda: attempt("admin"), None) if answer.status_code == 429)
    assert int(slowed.headers["retry-after"]) >= 1
    right = {"username": "admin", "password": own_api.password}
    assert httpx.post(f"{own_api.url}/auth/token", json=right).status_code == 429


def test_many_attempts_at_once_get_no_further_than_one_by_one(own_api):
    def attempt(_: int) -> int:
        wrong = {"username": "admin", "password": "wrong"}
        return httpx.post(f"{own_api.url}/auth/token", json=wrong, timeout=30).status_code

    started = time.monotonic()
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(attempt, range(30)))
    waits_over = math.log2((time.monotonic() - started) / 2 + 1)  # of 2, 4, 8 … seconds
    assert set(answers) == {401, 429}
    assert answers.count(401) <= 5 + waits_over


def test_an_account_of_ones_own_does_not_clear_the_address(own_api):
    def attempt(username: str, password: str) -> int:
        given = {"username": username, "password": password}
        return httpx.post(f"{own_api.url}/auth/token", json=given).status_code

    for guess in range(3):
        assert attempt(f"somebody-{guess}", "wrong") == 401
        assert attempt("admin", own_api.password) == 200
    with psycopg.connect(own_api.owner_url) as owner:
        failures = owner.execute("SELECT failures FROM login_failures ORDER BY failures").fetchall()
    assert failures == [(1,), (1,), (1,), (3,)]


def test_an_address_has_more_free_failures_and_is_forgiven_one_a_minute(api):
    account, office = os.urandom(32), os.urandom(32)
    with psycopg.connect(api.service_url, autocommit=True) as service:

        def attempt() -> float:
            """Somebody else of that office, each time."""
            return service.execute("SELECT sign_in_attempt(%s, %s)", (os.urandom(32), office)).fetchone()[0]

        assert [attempt() for _ in range(50)] == [0] * 50
        assert attempt() > 0
        assert service.execute("SELECT sign_in_attempt(%s, %s)", (account, os.urandom(32))).fetchone()[0] == 0
        with psycopg.connect(api.owner_url) as owner:
            owner.execute(
                "UPDATE login_failures SET last_failed_at = now() - interval '3 minutes' WHERE subject_sha256 = %s",
                (office,),
            )
        assert [attempt() > 0 for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("known", [True, False])
def test_an_unknown_user_costs_a_hash_too(monkeypatch, known):
    hashed = hash_password("a long password")
    verified = []
    verify = passwords._hasher.verify
    monkeypatch.setattr(passwords, "_hasher", SimpleNamespace(verify=lambda *a: verified.append(a) or verify(*a)))
    assert not password_matches("wrong", hashed if known else None)
    assert len(verified) == 1


def test_old_failures_are_forgotten(api):
    with psycopg.connect(api.owner_url) as owner:
        for age in ("2 days", "1 hour"):
            owner.execute(
                "INSERT INTO login_failures VALUES (sha256(%s::text::bytea), 1, now() - %s::interval)", (age, age)
            )
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT forget_sign_ins()")
    with psycopg.connect(api.owner_url) as owner:
        left = owner.execute("SELECT FROM login_failures WHERE last_failed_at < now() - interval '59 minutes'")
        assert len(left.fetchall()) == 1


def test_tokens_that_do_not_count(api):
    user = UUID(int=1)
    expired = issue_access_token(user, SECRET, timedelta(seconds=-1))
    forged = issue_access_token(user, SECRET[::-1], timedelta(hours=1))
    stranger = issue_access_token(user, SECRET, timedelta(hours=1))  # signed by us, for nobody
    for token in (expired, forged, stranger, "depot_unknown", "nonsense", "\u00e9"):
        answer = httpx.get(f"{api.url}/projects", headers={"Authorization": f"Bearer {token}".encode()})
        assert answer.status_code == 401, token
        assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{api.url}/projects").status_code == 401
    assert read_access_token(expired, SECRET) is None


def test_revoked_expired_and_deactivated_are_out_at_once(api):
    user = api.user("editor")
    assert user.http.get("/projects").status_code == 200
    for change, undo in (
        ("UPDATE api_tokens SET revoked_at = now()", "UPDATE api_tokens SET revoked_at = NULL"),
        ("UPDATE api_tokens SET expires_at = now()", "UPDATE api_tokens SET expires_at = now() + interval '1 day'"),
    ):
        for statement, status in ((change, 401), (undo, 200)):
            with psycopg.connect(api.owner_url) as owner:
                owner.execute(f"{statement} WHERE user_id = %s", (user.id,))
            assert user.http.get("/projects").status_code == status
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE users SET is_active = false WHERE id = %s", (user.id,))
    assert user.http.get("/projects").status_code == 401


def test_a_read_token_only_reads(api, project):
    member = project.member("contributor")
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE api_tokens SET scope = 'read' WHERE user_id = %s", (member.id,))
    assert member.http.get(f"/projects/{project.id}").status_code == 200
    missing = member.http.post(f"/projects/{project.id}/objects/missing", json={"sha256": []})
    assert missing.status_code == 200
    assert member.http.post("/changelists", json={"project_id": project.id}).status_code == 403


def test_a_token_is_stored_as_a_hash_only(api):
    with psycopg.connect(api.owner_url) as owner:
        rows = owner.execute("SELECT row_to_json(t)::text FROM api_tokens t").fetchall()
        audit = owner.execute("SELECT coalesce(after::text, '') FROM audit_log").fetchall()
    assert not [row for row in rows + audit if api.token in row[0] or "password_hash" in row[0]]


@pytest.mark.parametrize("secret", [None, "short"])
def test_the_service_refuses_to_start_without_a_real_secret(secret, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "JWT_SECRET"}
    environment |= {"DATABASE_URL": "postgresql://x/x", "ASSET_STORAGE_PATH": str(tmp_path)}
    if secret:
        environment["JWT_SECRET"] = secret
    command = [sys.executable, "-m", "depot_api", "--port", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "JWT_SECRET" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
