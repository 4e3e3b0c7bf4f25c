from pathlib import Path
from uuid import uuid4

from depot_api.client.models import FileChange, SyncAction


def test_a_workspace_is_synced_switched_and_deleted(depot, tmp_path: Path) -> None:
    (tmp_path / "Content").mkdir()
    for path in ("Content/a", "Content/b.psd", "readme"):
        (tmp_path / path).write_bytes(path.encode())
    depot.submit(tmp_path)
    client, branch = depot.client, depot.branch()
    work = client.create_workspace(depot.project.id, branch.id, "art", include=["content/**"], exclude=["*.psd"])
    sync = client.plan_workspace_sync(work.id)
    assert (sync.at, [(one.action, one.path) for one in sync.changes]) == (1, [(SyncAction.FETCH, "Content/a")])
    assert sync.changes[0].size_bytes == len("Content/a")
    done = client.acknowledge_sync(work.id, sync.at, sync.changes, complete=True)
    assert (done.is_complete, done.at_no) == (True, 1)
    assert [(file.path, file.version) for file in client.workspace_files(work.id)] == [("Content/a", 1)]
    assert client.plan_workspace_sync(work.id).changes == []
    side = client.create_branch(depot.project.id, f"side-{uuid4().hex}", parent_at=0)
    assert not client.switch_workspace(work.id, side.id).is_complete
    (gone,) = client.plan_workspace_sync(work.id).changes
    assert gone == FileChange(
        action=SyncAction.REMOVE,
        path="Content/a",
        asset_id=sync.changes[0].asset_id,
        have_version=1,
        version=None,
        sha256=None,
        size_bytes=None,
    )
    client.switch_workspace(work.id, branch.id)
    client.map_workspace(work.id, [], [])
    assert [one.path for one in client.plan_workspace_sync(work.id).changes] == ["Content/b.psd", "readme"]
    assert [one.name for one in client.workspaces(depot.project.id)] == ["art"]
    client.delete_workspace(work.id)
    assert list(client.workspaces(depot.project.id)) == []
