"""/health, /metrics, and an OpenAPI document that names every route's answers."""

import httpx
import psycopg

MIGRATION_AHEAD = "9999"


def test_health_names_its_parts(api):
    answer = httpx.get(f"{api.url}/health")
    checks = answer.json()["checks"]
    assert (answer.status_code, {name: check["status"] for name, check in checks.items()}) == (
        200,
        {"database": "ok", "storage": "ok", "migrations": "ok"},
    )
    assert checks["storage"]["free_bytes"] > 0


def test_a_schema_that_is_not_current(own_api):
    with psycopg.connect(own_api.owner_url) as owner:
        owner.execute("UPDATE alembic_version SET version_num = %s", (MIGRATION_AHEAD,))
    answer = httpx.get(f"{own_api.url}/health")
    check = answer.json()["checks"]["migrations"]
    assert (answer.status_code, check["current"]) == (503, MIGRATION_AHEAD)
    assert "depot-ops migrate" in check["reason"]


def test_metrics_count(api, project):
    project.add("a", b"12345")
    text = httpx.get(f"{api.url}/metrics").text
    assert (
        'depot_request_seconds_count{method="PUT",route="/projects/{project_id}/objects/{sha256}",status="201"}' in text
    )
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["depot_submits_total"]) >= 1
    assert float(values["depot_uploaded_bytes_total"]) >= 5


def test_every_route_has_a_summary_and_its_problems(api):
    document = httpx.get(f"{api.url}/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) > 25
    assert all(operation.get("summary") for operation in operations)
    guarded = [operation for operation in operations if "security" in operation]
    assert len(guarded) > 20
    for operation in guarded:
        assert {"401", "404", "422", "503"} <= operation["responses"].keys(), operation["summary"]
