"""The service as a process: how it ends."""

from tests.depot_api.conftest import running_api


def test_it_ends_well_when_told_and_leaves_nothing_behind(cluster, depot_template, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    with running_api(cluster, depot_template, tmp_path) as api:
        assert [path.name.startswith("depot-metrics-") for path in scratch.iterdir()] == [True]
        api.process.terminate()
        assert api.process.wait(30) == 0
    assert list(scratch.iterdir()) == []
