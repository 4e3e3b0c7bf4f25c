def test_a_token_is_printed_once_works_and_is_revoked(api, depot) -> None:
    made = depot("token", "create", "nightly", "--scope", "read", "--days", "2")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert token.startswith("depot_")
    assert token not in made.stderr
    assert depot("whoami", DEPOT_TOKEN=token).returncode == 0
    assert depot("project", "create", "x", DEPOT_TOKEN=token).returncode == 1
    found = [one for one in depot.json("token", "list")["tokens"] if one["name"] == "nightly"]
    for _ in range(2):
        assert depot("token", "revoke", found[-1]["id"]).returncode == 0
    assert depot("whoami", DEPOT_TOKEN=token).returncode == 1
    listed = depot("token", "list")
    assert "revoked" in listed.stdout
    assert token not in listed.stdout


def test_an_admin_revokes_the_tokens_of_others(api, depot) -> None:
    user = api.user()
    (token,) = depot.json("token", "list", "--user", user.name)["tokens"]
    assert depot("token", "revoke", token["id"]).returncode == 1, "not the admin's own"
    assert depot("token", "revoke", token["id"], "--user", user.name).returncode == 0
    assert user.http.get("/auth/me").status_code == 401
