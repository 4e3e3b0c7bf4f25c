from uuid import uuid4

PASSWORD = "first-password\n"


def test_a_user_is_made_found_given_a_password_and_deactivated(api, depot, bare_depot) -> None:
    name = f"user-{uuid4().hex}"
    made = depot("user", "create", name, "--display-name", "Ada", "--role", "editor", stdin=PASSWORD)
    assert (made.returncode, name in made.stdout) == (0, True), made.stderr
    (user,) = depot.json("user", "list", "--name", name)["users"]
    assert (user["display_name"], user["studio_role"], user["is_active"]) == ("Ada", "editor", True)
    assert bare_depot("login", api.url, "--username", name, stdin=PASSWORD).returncode == 0
    assert depot("user", "reset-password", name, stdin="other-password\n").returncode == 0
    assert bare_depot("login", api.url, "--username", name, stdin=PASSWORD).returncode == 1
    assert bare_depot("login", api.url, "--username", name, stdin="other-password\n").returncode == 0
    assert depot("user", "deactivate", name.upper()).returncode == 0
    assert bare_depot("whoami").returncode == 1
    assert "deactivated" in depot("user", "list", "--name", name).stdout


def test_what_cannot_be_done_is_told(depot) -> None:
    assert "no user" in depot("user", "deactivate", "nobody-of-this-name").stderr
    short = depot("user", "create", f"user-{uuid4().hex}", stdin="short\n")
    assert (short.returncode, "/password" in short.stderr) == (1, True)
