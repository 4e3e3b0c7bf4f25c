"""What a scrape asks: counts over every tenant, and an answer also when the database is gone."""

import hashlib
import os
import subprocess
import sys

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql


def scraped(url: str) -> dict[str, float]:
    """Every sample, its labels behind its name."""
    answer = httpx.get(f"{url}/metrics", timeout=15)
    assert answer.status_code == 200, answer.text
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_locks_of_every_tenant_are_counted(api, project):
    before = scraped(api.url)["depot_locks_held"]
    project.add("held.uasset", b"content")
    lock = {"project_id": project.id, "branch_id": project.main, "path": "held.uasset", "base_version": 1}
    locked = project.http.post("/locks", json=lock)
    assert locked.status_code < 300, locked.text
    after = scraped(api.url)
    assert after["depot_locks_held"] == before + 1
    assert after["depot_merge_jobs status=queued"] >= 0
    assert after["depot_store_free_bytes"] > 0
    assert (after["depot_database_up"], after["depot_store_up"], after["depot_schema_current"]) == (1, 1, 1)
    assert after["depot_pool_connections state=idle"] + after["depot_pool_connections state=busy"] >= 1


def test_content_that_need_not_be_sent_is_counted(api, project):
    content = b"0123456789" * 7
    project.add("a", content)
    before = scraped(api.url)["depot_dedup_saved_bytes_total"]
    hashes = [hashlib.sha256(content).hexdigest(), "0" * 64]
    asked = project.http.post(f"/projects/{project.id}/objects/missing", json={"sha256": hashes})
    assert asked.status_code == 200, asked.text
    assert scraped(api.url)["depot_dedup_saved_bytes_total"] == before + len(content)


def test_a_database_that_is_gone_does_not_fail_the_scrape(own_api, cluster):
    with psycopg.connect(own_api.owner_url) as owner:
        database = owner.info.dbname
    name = sql.Identifier(database)
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
        samples = scraped(own_api.url)
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    assert samples["depot_database_up"] == 0
    assert "depot_locks_held" not in samples
    assert samples["depot_store_up"] == 1


@pytest.mark.parametrize("alive", [False, True])
def test_a_dead_workers_gauges_are_forgotten(tmp_path, alive):
    write = "from depot_api.metrics import POOL_WAITING, SUBMITS; POOL_WAITING.set(3); SUBMITS.inc()"
    read = "import os; from depot_api.metrics import exposition; print(exposition(os.environ['D']).decode())"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "D": str(tmp_path)}
    script = f"{write}; {read}" if alive else read
    if not alive:
        subprocess.run([sys.executable, "-c", write], env=environment, check=True)
    text = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert ("depot_pool_waiting_requests 3.0" in text) is alive
    assert "depot_submits_total 1.0" in text
