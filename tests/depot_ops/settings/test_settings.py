"""Settings come from the environment when they are needed, and what is wrong is named."""

import pytest

from depot_ops.settings import DumpSettings, OrchestratorSettings, SettingsError, load


def test_everything_that_is_missing_is_named_at_once(monkeypatch):
    monkeypatch.delenv("BACKUP_DIR", raising=False)
    monkeypatch.delenv("DEPOT_DUMP_URL", raising=False)
    with pytest.raises(SettingsError) as raised:
        load(DumpSettings)
    assert str(raised.value).splitlines() == [
        "BACKUP_DIR: not set in the environment",
        "DEPOT_DUMP_URL: not set in the environment",
    ]


def test_a_secret_does_not_show(monkeypatch):
    monkeypatch.setenv("BACKUP_DIR", "backups")
    monkeypatch.setenv("DEPOT_DUMP_URL", "postgresql://depot_dump:secret@localhost/depot")
    assert "secret" not in repr(load(DumpSettings))


@pytest.mark.parametrize(
    ("name", "value"),
    [("DAGSTER_KEEP_RUNS_DAYS", "0"), ("DAGSTER_KEEP_RUNS_DAYS", "x"), ("MAINTENANCE_TIMEZONE", "../x")],
)
def test_an_unusable_value_is_refused_by_name(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load(OrchestratorSettings)
