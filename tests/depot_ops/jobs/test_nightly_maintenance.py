"""The night: a backup, its proofs, the depot's health; red when any of it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest

from depot_ops.definitions import defs

BACKUP_CHECKS = {"restorable_listing", "full_read", "checksum", "row_counts", "backup_age"}


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"status": "ok", "checks": {"storage": {"status": "ok", "free_bytes": 1000}}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def depot_service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def backups(tmp_path, depot_database, cluster, monkeypatch) -> Path:
    """The environment that the stack gives, but for DEPOT_URL."""
    monkeypatch.setenv("DEPOT_DUMP_URL", depot_database.dump_url)
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(cluster.binaries.bindir))
    return tmp_path / "backups"


def run_job(name: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False)


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def test_a_good_night_is_green_with_figures(backups, monkeypatch):
    with depot_service() as url, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("DEPOT_URL", url)
        result = run_job("nightly_maintenance", instance)
    assert result.success
    assert passed(result) == dict.fromkeys([*BACKUP_CHECKS, "service_health"], True)
    figures = result.asset_materializations_for_node("logical_backup")[0].metadata
    for name in ("size_bytes", "duration_seconds", "rate_bytes_per_second", "rows", "tables"):
        assert isinstance(figures[name], dg.IntMetadataValue | dg.FloatMetadataValue), name
    dump = Path(str(figures["path"].value))
    assert dump.parent == backups
    assert dump.stat().st_size == figures["size_bytes"].value


def test_a_depot_that_is_down_makes_the_night_red_and_the_backup_is_still_taken_and_proved(backups, monkeypatch):
    monkeypatch.setenv("DEPOT_URL", "http://127.0.0.1:1")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_job("nightly_maintenance", instance)
    assert not result.success
    assert passed(result) == {**dict.fromkeys(BACKUP_CHECKS, True), "service_health": False}
    assert len(list(backups.glob("*.dump"))) == 1


def test_a_database_that_is_gone_makes_the_night_red_and_health_is_still_asked(backups, monkeypatch):
    monkeypatch.setenv("DEPOT_DUMP_URL", "postgresql://depot_dump:secret-password@127.0.0.1:1/depot")
    with depot_service() as url, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("DEPOT_URL", url)
        result = run_job("nightly_maintenance", instance)
        events = "".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert not result.success
    assert passed(result) == {"service_health": True}
    assert "refused" in events
    assert "secret-password" not in events
    assert list(backups.glob("*")) == [backups / ".lock"]


def test_what_is_not_set_is_named(backups, monkeypatch):
    monkeypatch.delenv("DEPOT_URL", raising=False)
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.DagsterInvalidConfigError, match="DEPOT_URL"):
        run_job("nightly_maintenance", instance)


def test_damage_that_came_later_is_found_when_only_the_checks_run_and_all_of_them_run(backups, monkeypatch):
    monkeypatch.setenv("DEPOT_URL", "http://127.0.0.1:1")
    with dg.DagsterInstance.ephemeral() as instance:
        run_job("nightly_maintenance", instance)
        dump = next(backups.glob("*.dump"))
        dump.write_bytes(dump.read_bytes()[:-1000])
        result = run_job("backup_verification", instance)
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert not result.success
    assert found.keys() == BACKUP_CHECKS
    assert not found["full_read"].passed
    assert not found["checksum"].passed
    assert found["checksum"].severity is dg.AssetCheckSeverity.ERROR
    assert found["checksum"].metadata["file"].value == dump.name
    assert found["checksum"].metadata["status"].value == "unhealthy"


def test_checks_without_any_backup_are_red(backups):
    backups.mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_job("backup_verification", instance)
    assert not result.success
    assert passed(result) == dict.fromkeys(BACKUP_CHECKS, False)


def test_after_a_proved_backup_what_retention_lets_go_is_gone(backups, monkeypatch):
    for setting in ("MINS", "DAYS", "WEEKS", "MONTHS"):
        monkeypatch.setenv(f"BACKUP_KEEP_{setting}", "0")
    with depot_service() as url, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("DEPOT_URL", url)
        for _ in range(3):
            result = run_job("nightly_maintenance", instance)
            assert result.success
    figures = result.asset_materializations_for_node("retention")[0].metadata
    assert (figures["deleted"].value, figures["kept"].value) == (1, 2)
    assert len(list(backups.glob("*.dump"))) == 2


def test_after_a_night_without_a_backup_nothing_goes(backups, monkeypatch):
    with depot_service() as url, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("DEPOT_URL", url)
        for _ in range(2):
            run_job("nightly_maintenance", instance)
        for setting in ("MINS", "DAYS", "WEEKS", "MONTHS"):
            monkeypatch.setenv(f"BACKUP_KEEP_{setting}", "0")
        monkeypatch.setenv("BACKUP_KEEP_MINIMUM", "1")
        monkeypatch.setenv("DEPOT_DUMP_URL", "postgresql://depot_dump@127.0.0.1:1/depot")
        result = run_job("nightly_maintenance", instance)
    assert not result.asset_materializations_for_node("retention")
    assert len(list(backups.glob("*.dump"))) == 2
