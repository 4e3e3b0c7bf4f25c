"""A caller that asks too often waits; nobody else does."""

import httpx
import pytest

from depot_api.client.http import Transport
from depot_api.rate_limit import MAX_CALLERS, Buckets


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills():
    clock = Clock()
    buckets = Buckets(2.0, clock)
    assert [buckets.take(b"one") for _ in range(20)] == [0.0] * 20
    assert buckets.take(b"one") == pytest.approx(0.5)
    assert buckets.take(b"other") == 0.0
    clock.now += 0.5
    assert buckets.take(b"one") == 0.0
    assert buckets.take(b"one") > 0
    clock.now += 3600
    assert [buckets.take(b"one") > 0 for _ in range(21)] == [False] * 20 + [True]


def test_callers_are_forgotten_before_they_fill_the_memory():
    buckets = Buckets(1.0, Clock())
    for number in range(MAX_CALLERS + 5):
        buckets.take(str(number).encode())
    assert len(buckets._callers) == MAX_CALLERS


def test_the_service_answers_429_and_the_client_waits(
    running_api_factory, cluster, depot_template, tmp_path, monkeypatch
):
    _, running_api = running_api_factory
    monkeypatch.setenv("RATE_LIMIT_REQUESTS_PER_SECOND", "1")
    with running_api(cluster, depot_template, tmp_path) as api:
        with api.client() as http:
            refused = next(answer for _ in range(20) if (answer := http.get("/auth/me")).status_code != 200)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.headers["x-request-id"]
            assert refused.json()["type"] == "urn:asset-depot:problem:rate-limited"
        assert httpx.get(f"{api.url}/auth/me").status_code == 401  # without a token: a bucket of its own
        assert all(httpx.get(f"{api.url}/health").status_code == 200 for _ in range(12))
        transport = Transport(api.url, api.token, connections=1)
        assert transport.request("GET", "/auth/me").status == 200
        transport.close()
