"""The store's disk was replaced: everything comes back, or first what a project or a branch needs."""

import json
import secrets

import pytest
from typer.testing import CliRunner

from depot_ops.blobs.mirror import open_mirror
from depot_ops.cli import app


def stored(root) -> set[str]:
    return {path.name.removesuffix(".bin.gz") for path in (root / "objects").rglob("*.bin.gz")}


@pytest.fixture(scope="module")
def own_store(cluster, depot_template, tmp_path_factory, running_api_factory):
    """A service whose store has nothing of other tests, which would all be copied."""
    with running_api_factory[1](cluster, depot_template, tmp_path_factory.mktemp("own")) as api:
        yield api


@pytest.fixture
def mirrored(own_store, running_api_factory, tmp_path, monkeypatch):
    """Two projects, one with a branch of its own content; what each refers to, by name."""
    api, (make_project, _) = own_store, running_api_factory
    one, other = make_project(api), make_project(api)
    contents = {name: secrets.token_bytes(60) for name in ("main", "later", "branch", "shelf", "other")}
    one.add("main", contents["main"])
    body = {"project_id": one.id, "name": "task"}
    branch = one.http.post("/branches", json=body).json()["id"]
    one.add("later", contents["later"])
    one.add("branch", contents["branch"], branch)
    item = {"action": "add", "path": "shelf", "sha256": one.put(contents["shelf"])}
    shelf = {"project_id": one.id, "branch_id": one.main, "items": [item]}
    assert one.http.post("/shelves", json=shelf).status_code == 201
    other.add("other", contents["other"])
    with open_mirror(api.store, tmp_path / "mirror") as mirror:
        mirror.reconcile()
    monkeypatch.setenv("ASSET_STORAGE_PATH", str(tmp_path / "new"))
    monkeypatch.setenv("ASSET_STORAGE_REPLICA_PATH", str(tmp_path / "mirror"))
    monkeypatch.setenv("DEPOT_DUMP_URL", api.owner_url)
    yield one, {name: one.put(content) for name, content in contents.items()}
    one.http.close()
    other.http.close()


def restore(*options: str) -> tuple[int, dict]:
    done = CliRunner().invoke(app, ["blobs", "restore", "--json", *options])
    return done.exit_code, json.loads(done.stdout)


def test_what_a_branch_and_then_a_project_need_comes_first(mirrored, tmp_path):
    project, named = mirrored
    code, told = restore("--project", project.name, "--branch", "task")
    assert (code, told["copied_objects"]) == (0, 2)
    assert stored(tmp_path / "new") == {named["main"], named["branch"]}
    code, told = restore("--project", project.id)
    assert (code, told["copied_objects"]) == (0, 2)
    assert stored(tmp_path / "new") == set(named.values()) - {named["other"]}


@pytest.mark.parametrize("options", [(), ("--no-catalogue",)])
def test_everything_comes_back(mirrored, tmp_path, options):
    _, named = mirrored
    _, told = restore(*options)
    assert stored(tmp_path / "new") >= set(named.values())
    assert told["copied_objects"] == told["objects"]


def test_a_project_that_the_catalogue_does_not_have_is_named(mirrored):
    done = CliRunner().invoke(app, ["blobs", "restore", "--project", "nobody's"])
    assert done.exit_code == 1
    assert "nobody's" in done.stderr
