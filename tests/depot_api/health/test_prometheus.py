"""A real Prometheus scrapes the service and operations with the configuration and the rules that are deployed."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from depot_ops.local.ports import any_free

MONITORING = Path(__file__).resolve().parents[3] / "deploy" / "monitoring"
DEADLINE_SECONDS = 40

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian's package of that name)"
)


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def eventually(ask: Callable[[], Any], log: Path) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            if found := ask():
                return found
        except httpx.TransportError:
            pass  # it is still starting
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.1)


def test_prometheus_scrapes_the_service_and_operations(api, tmp_path):
    ops_port, port = any_free(), any_free()
    text = (MONITORING / "prometheus.yml").read_text()
    for target, address in {
        "asset-service:8000": api.url.removeprefix("http://"),
        "depot-ops-metrics:9188": f"127.0.0.1:{ops_port}",
        "postgres-exporter:9187": "127.0.0.1:1",
        "alertmanager:9093": "127.0.0.1:1",
        "rules.yml": str(MONITORING / "rules.yml"),
    }.items():
        assert target in text
        text = text.replace(target, address)
    config = tmp_path / "prometheus.yml"
    config.write_text(re.sub(r"(scrape|evaluation)_(interval|timeout): \S+", r"\1_\2: 1s", text))
    backups = tmp_path / "backups"
    backups.mkdir()
    ops = [sys.executable, "-m", "depot_ops", "metrics", "--listen", f"127.0.0.1:{ops_port}"]
    prometheus = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]

    def query(expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression})
        return list(answer.json()["data"]["result"]) if answer.status_code == 200 else []

    log = tmp_path / "prometheus.log"
    with running(ops, tmp_path / "ops.log", {"BACKUP_DIR": str(backups)}), running(prometheus, log):
        eventually(lambda: len(query('up{job=~"depot|depot-ops"} == 1')) == 2, log)
        assert query("depot_database_up")[0]["value"][1] == "1"
        eventually(lambda: query('depot_ops_check_healthy{check="backup_age"} == 0'), log)
        # There is no backup, and no postgres_exporter: one alarm waits for its time, another is not due.
        pending = eventually(lambda: query('ALERTS{alertname="BackupOld"}'), log)
        assert pending[0]["metric"]["severity"] == "critical"
        assert query('ALERTS{alertname="DepotDown"}') == []
