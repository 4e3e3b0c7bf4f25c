import json
import stat
from pathlib import Path

NOWHERE = {"DEPOT_URL": "http://127.0.0.1:1", "DEPOT_TOKEN": "x"}


def test_a_depot_that_is_not_there_is_3_without_a_traceback(bare_depot) -> None:
    done = bare_depot("whoami", **NOWHERE)
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    done = bare_depot("whoami", "--json", **NOWHERE)
    assert json.loads(done.stdout)["error"]["kind"] == "Unreachable"


def test_wrong_usage_is_2(bare_depot) -> None:
    assert bare_depot("submit").returncode == 2
    assert bare_depot("no-such-command").returncode == 2


def test_nobody_signed_in_is_told_what_to_do(bare_depot) -> None:
    done = bare_depot("project", "list")
    assert done.returncode == 1
    assert "depot login" in done.stderr


def test_a_wrong_token_is_told_what_to_do(depot) -> None:
    done = depot("whoami", DEPOT_TOKEN="depot_wrong")
    assert done.returncode == 1
    assert "depot login" in done.stderr
    assert "depot_wrong" not in done.stderr


def test_a_token_is_only_sent_to_the_depot_that_gave_it(bare_depot) -> None:
    kept = Path(bare_depot.environment["XDG_CONFIG_HOME"]) / "asset-depot/credentials.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"url": "http://127.0.0.1:1", "username": "a", "token": "secret"}))
    done = bare_depot("whoami", DEPOT_URL="http://127.0.0.1:2")
    assert done.returncode == 1
    assert "DEPOT_TOKEN" in done.stderr


def test_login_keeps_a_token_that_later_commands_use(api, bare_depot) -> None:
    done = bare_depot("login", api.url, "--username", "admin", stdin=f"{api.password}\n")
    assert done.returncode == 0, done.stderr
    kept = Path(bare_depot.environment["XDG_CONFIG_HOME"]) / "asset-depot/credentials.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert api.password not in kept.read_text()
    assert bare_depot.json("whoami")["username"] == "admin"


def test_a_wrong_password_is_1_and_keeps_nothing(api, bare_depot) -> None:
    done = bare_depot("login", api.url, "--username", "nobody", stdin="wrong\n")
    assert done.returncode == 1
    assert not Path(bare_depot.environment["XDG_CONFIG_HOME"]).exists()


def test_projects_and_branches(depot, project: str) -> None:
    assert project in [one["name"] for one in depot.json("project", "list")["projects"]]
    branch = depot.json("branch", "create", "release", "--project", project)
    branches = depot.json("branch", "list", "--project", project)["branches"]
    assert {one["name"] for one in branches} == {"main", "release"}
    assert branch["parent_id"] == next(one["id"] for one in branches if one["name"] == "main")
    assert depot("branch", "list", "--project", project).stdout.startswith("NAME")


def test_names_that_are_not_there_are_1(depot, project: str) -> None:
    assert "no project" in depot("branch", "list", "--project", "nowhere").stderr
    done = depot("log", "--project", project, "--branch", "nowhere")
    assert (done.returncode, "no branch" in done.stderr) == (1, True)


def test_the_same_name_twice_is_1(depot, project: str) -> None:
    assert depot.json("project", "create", project, exit_code=1)["error"]["status"] == 409
