from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from depot_api.client import DepotClient
from depot_api.client.models import ProjectRole, TypemapRule


@dataclass(frozen=True)
class Artist:
    """A member with the command, and a workspace of the project's main."""

    name: str
    depot: Any
    work: Path

    @property
    def hero(self) -> Path:
        return self.work / "Content/hero.uasset"


@pytest.fixture
def artist(api, depot, project: str, tmp_path: Path) -> Callable[..., Artist]:
    def join(role: ProjectRole = ProjectRole.CONTRIBUTOR) -> Artist:
        user = api.user()
        with DepotClient(api.url, api.token) as client:
            client.set_member(client.find_project(project).id, user.name, role)
        own = replace(depot, environment=depot.environment | {"DEPOT_TOKEN": user.token})
        work = tmp_path / user.name
        own.json("sync", work, "-p", project)
        return Artist(user.name, own, work)

    return join


@pytest.fixture
def stocked(depot, project: str, tree) -> str:
    """The project with one file, version 1."""
    depot.json("submit", tree("first", {"Content/hero.uasset": b"1"}), "-p", project, "-m", "first")
    return project


@pytest.mark.parametrize("command", ["lock", "unlock", "locks"])
def test_every_command_has_help_with_an_example_and_json(bare_depot, command: str) -> None:
    done = bare_depot(command, "--help")
    assert done.returncode == 0
    assert f"Example: depot {command}" in done.stdout
    assert "--json" in done.stdout


def test_lock_list_unlock(stocked: str, artist) -> None:
    ada, ben = artist(), artist()
    [locked] = ada.depot.json("lock", ada.hero, "--hours", "2")["locks"]
    assert (locked["path"], locked["holder"], locked["base_version"]) == ("Content/hero.uasset", ada.name, 1)
    refused = ben.depot("lock", ben.hero)
    assert refused.returncode == 1
    assert ada.name in refused.stderr
    assert "Ask them" in refused.stderr
    listed = ben.depot("locks", "-p", stocked)
    assert "Content/hero.uasset" in listed.stdout
    assert ada.name in listed.stdout
    assert ada.depot.json("locks", "-p", stocked, "--mine")["locks"] == [locked]
    assert ben.depot.json("locks", "-p", stocked, "--mine")["locks"] == []
    assert ben.depot("unlock", ben.hero).returncode == 1
    assert ada.depot("unlock", ada.hero).stdout == "Unlocked Content/hero.uasset.\n"
    assert ada.depot("locks", "-p", stocked).stdout == "No locks.\n"


def test_an_old_copy_is_not_locked_and_the_branch_is_named(stocked: str, artist) -> None:
    ada, ben = artist(), artist()
    ada.depot.json("lock", ada.hero)
    ada.hero.write_bytes(b"2")
    ada.depot.json("submit", ada.work, "-m", "second")
    refused = ben.depot("lock", ben.hero)
    assert refused.returncode == 1
    assert "version 2 on branch main" in refused.stderr
    assert "depot sync" in refused.stderr
    ben.depot.json("sync", ben.work)
    assert ben.depot.json("lock", ben.hero)["locks"][0]["base_version"] == 2


def test_a_new_file_is_locked_before_it_is_there(stocked: str, artist) -> None:
    ada = artist()
    [locked] = ada.depot.json("lock", ada.work / "Content/new.uasset")["locks"]
    assert (locked["path"], locked["base_version"]) == ("Content/new.uasset", None)


def test_a_lead_breaks_a_lock_with_a_reason(stocked: str, artist) -> None:
    ada, lead = artist(), artist(ProjectRole.LEAD)
    ada.depot.json("lock", ada.hero)
    refused = artist().depot("lock", "Content/hero.uasset", "-p", stocked, "--break", "--reason", "mine")
    assert refused.returncode == 1
    broken = lead.depot("lock", "Content/hero.uasset", "-p", stocked, "--break", "--reason", "holiday")
    assert (broken.returncode, broken.stdout) == (0, f"Broke the lock of {ada.name} on Content/hero.uasset.\n")
    assert lead.depot.json("locks", "-p", stocked)["locks"] == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["Content/hero.uasset", "--break"], "--reason"),
        (["Content/hero.uasset", "--reason", "r"], "--break"),
        (["Content/hero.uasset", "--project", "p"], "in a workspace"),
        (["Content"], "is a directory"),
        (["Content/hero.uasset", "/elsewhere/file"], "is not in the workspace"),
        (["Content/hero.uasset", "--hours", "200"], "--hours"),
    ],
)
def test_wrong_usage(stocked: str, artist, arguments: list[str], why: str) -> None:
    ada = artist()
    done = replace(ada.depot, directory=ada.work)("lock", *arguments)
    assert done.returncode == 2
    assert why in done.stderr


def test_unlocking_what_is_not_locked(stocked: str, artist) -> None:
    ada = artist()
    done = ada.depot("unlock", ada.hero)
    assert done.returncode == 2
    assert "is not locked" in done.stderr


def test_an_exclusive_file_is_submitted_with_a_lock_only(api, stocked: str, artist) -> None:
    ada = artist()
    with DepotClient(api.url, api.token) as client:
        project_id = client.find_project(stocked).id
        client.set_typemap(project_id, [TypemapRule(pattern="*.uasset", exclusive=True)])
        assert [rule.pattern for rule in client.typemap(project_id)] == ["*.uasset"]
    ada.hero.write_bytes(b"2")
    refused = ada.depot("submit", ada.work, "-m", "m")
    assert refused.returncode == 1
    assert "depot lock" in refused.stderr
    ada.depot.json("lock", ada.hero)
    assert ada.depot("submit", ada.work, "-m", "m").returncode == 0


def test_a_lock_that_was_lost_refuses_the_late_submit(stocked: str, artist) -> None:
    ada, lead = artist(), artist(ProjectRole.LEAD)
    ada.depot.json("lock", ada.hero)
    lead.depot.json("lock", "Content/hero.uasset", "-p", stocked, "--break", "--reason", "holiday")
    ada.hero.write_bytes(b"2")
    late = ada.depot("submit", ada.work, "-m", "late")
    assert late.returncode == 1
    assert "is not yours any more" in late.stderr
    ada.depot.json("lock", ada.hero)
    assert ada.depot("submit", ada.work, "-m", "in time").returncode == 0
    ada.hero.write_bytes(b"3")
    assert ada.depot("submit", ada.work, "-m", "without").returncode == 0


def test_what_was_unlocked_is_submitted_without_a_lock(stocked: str, artist) -> None:
    ada = artist()
    ada.depot.json("lock", ada.hero)
    ada.depot.json("unlock", ada.hero)
    ada.hero.write_bytes(b"2")
    assert ada.depot("submit", ada.work, "-m", "free").returncode == 0


def test_the_client_renews_releases_and_filters(api, stocked: str) -> None:
    with DepotClient(api.url, api.token) as client:
        project = client.find_project(stocked)
        [held] = client.lock(project.id, project.default_branch_id, {"Content/hero.uasset": 1}, lease_seconds=60)
        renewed = client.renew_lock(held.id, 600)
        assert (renewed.fencing_number, renewed.expires_at > held.expires_at) == (held.fencing_number, True)
        assert list(client.locks(project.id, prefix="content/", holder="admin", expired=False)) == [renewed]
        assert list(client.locks(project.id, expired=True)) == []
        client.release_lock(held.id)
        assert list(client.locks(project.id)) == []
