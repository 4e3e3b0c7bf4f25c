from pathlib import Path
from uuid import UUID, uuid4

import pytest

from depot_api.client import DepotClient, ProblemError
from depot_api.client.models import ProjectRole, StudioRole, TokenScope


def test_health_and_identity(depot) -> None:
    assert depot.client.health().status == "ok"
    assert set(depot.client.health().checks) >= {"database", "storage", "migrations"}
    assert depot.client.me().username == "admin"


def test_signing_in_with_a_password(api) -> None:
    with DepotClient(api.url) as client:
        with pytest.raises(ProblemError) as caught:
            client.me()
        assert (caught.value.status, caught.value.slug) == (401, "unauthenticated")
        token = client.sign_in("admin", api.password)
        assert token.expires_in > 0
        assert client.me().username == "admin"


def test_projects_are_found_by_name_and_id(depot) -> None:
    assert depot.client.find_project(depot.project.name) == depot.project
    assert depot.client.find_project(depot.project.name.upper()) == depot.project
    assert depot.client.find_project(str(depot.project.id)) == depot.project
    with pytest.raises(ProblemError) as caught:
        depot.client.find_project("nowhere")
    assert caught.value.status == 404
    with pytest.raises(ProblemError) as caught:
        depot.client.find_project(str(uuid4()))
    assert caught.value.status == 404


def test_branches_are_found_by_name_and_id(depot) -> None:
    main = depot.branch()
    release = depot.client.create_branch(depot.project.id, "release", parent_id=main.id)
    assert {branch.name for branch in depot.client.branches(depot.project.id)} == {"main", "release"}
    assert depot.client.find_branch(depot.project.id, str(release.id)) == release


def test_members(depot) -> None:
    (member,) = depot.client.members(depot.project.id)
    assert (member.username, member.role) == ("admin", ProjectRole.OWNER)
    assert depot.client.set_member(depot.project.id, "admin", ProjectRole.OWNER) == member


def test_what_was_submitted_is_told_from_every_side(depot, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"other")
    result = depot.submit(tmp_path, "first")
    (tmp_path / "a").write_bytes(b"two")
    depot.submit(tmp_path, "second")
    newest, first = depot.client.changelists(depot.project.id)
    assert (newest.number, first.number, first.description) == (2, 1, "first")
    assert str(first.id) == result.changelist_id
    assert [item.path for item in depot.client.changelist_items(first.id)] == ["a", "b"]
    asset, _ = depot.client.assets(depot.project.id)
    assert (asset.path, asset.last_version) == ("a", 2)
    assert depot.client.asset(asset.id) == asset
    assert [version.number for version in depot.client.asset_versions(asset.id)] == [2, 1]
    assert [one.path for one in depot.client.assets(depot.project.id, prefix="b")] == ["b"]


def test_a_manifest_of_more_rows_than_a_page(depot, tmp_path: Path) -> None:
    for number in range(2_500):
        (tmp_path / f"f{number}").write_bytes(b"%d" % number)
    depot.submit(tmp_path)
    manifest = depot.client.manifest(depot.branch().id)
    assert (manifest.at, len(manifest.files)) == (1, 2_500)
    assert depot.client.manifest(depot.branch().id, at=0).files == {}


def test_users_and_tokens(api, depot) -> None:
    name = f"user-{uuid4().hex}"
    user = depot.client.create_user(name, "first-password", display_name="Ada", studio_role=StudioRole.EDITOR)
    assert depot.client.find_user(name.upper()) == depot.client.find_user(str(user.id)) == user
    depot.client.reset_password(user.id, "second-password")
    with DepotClient(api.url) as client:
        client.sign_in(name, "second-password")
        client.change_password("second-password", "third-password")
        client.sign_in(name, "third-password")
        made = client.create_token("test", TokenScope.READ, 1)
        assert [token.id for token in client.tokens()] == [made.id]
        client.revoke_token(made.id)
    (token,) = depot.client.tokens(user.id)
    assert token.revoked_at is not None
    depot.client.revoke_token(token.id, user.id)
    assert not depot.client.update_user(user.id, is_active=False).is_active


def test_a_project_is_changed_measured_archived_and_back(depot, tmp_path: Path) -> None:
    project_id = depot.project.id
    (tmp_path / "a").write_bytes(b"12345")
    depot.submit(tmp_path)
    changed = depot.client.update_project(project_id, status="on_hold", quota_bytes=1000)
    assert (changed.status, changed.quota_bytes, changed.name) == ("on_hold", 1000, depot.project.name)
    assert depot.client.storage(project_id).used_bytes == 5
    taken = depot.client.take_storage_snapshot(project_id)
    assert list(depot.client.storage_snapshots(project_id)) == [taken]
    summary = depot.client.archive_project(project_id, "shipped")
    assert (summary.reason, summary.versions, summary.used_bytes) == ("shipped", 1, 5)
    assert list(depot.client.archives(project_id)) == [summary]
    assert depot.client.unarchive_project(project_id).status == "active"
    assert depot.client.update_project(project_id, quota_bytes=None).quota_bytes is None


def test_a_member_is_removed(api, depot) -> None:
    user = api.user()
    depot.client.set_member(depot.project.id, user.name, ProjectRole.LEAD)
    depot.client.remove_member(depot.project.id, UUID(user.id))
    assert [member.username for member in depot.client.members(depot.project.id)] == ["admin"]


def test_a_tree_that_does_not_fit_the_quota_is_refused(depot, tmp_path: Path) -> None:
    depot.client.update_project(depot.project.id, quota_bytes=100)
    (tmp_path / "large").write_bytes(b"x" * 1000)
    with pytest.raises(ProblemError) as caught:
        depot.submit(tmp_path)
    assert (caught.value.status, caught.value.slug) == (507, "quota-exceeded")
