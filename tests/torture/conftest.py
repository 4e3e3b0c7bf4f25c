"""A service that is killed at random and started again, on the same database and store."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from depot_api.identity.tokens import hash_api_token, new_api_token
from depot_ops.local.ports import any_free
from depot_ops.postgres.cluster import Cluster

START_TIMEOUT_SECONDS = 60


@dataclass
class KillableService:
    url: str
    owner_url: str
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "depot_api", "--port", self.url.rsplit(":", 1)[1]]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def token(self, studio_role: str) -> str:
        """A new user's."""
        return self.user(studio_role)[1]

    def user(self, studio_role: str) -> tuple[str, str]:
        """A new user's name and token."""
        name, token = f"user-{secrets.token_hex(6)}", new_api_token()
        with psycopg.connect(self.owner_url) as owner:
            owner.execute(
                """WITH made AS (INSERT INTO users (username, studio_role) VALUES (%s, %s) RETURNING id)
                   INSERT INTO api_tokens (user_id, name, token_sha256, scope, expires_at)
                   SELECT id, 'torture', %s, 'admin', now() + interval '1 day' FROM made""",
                (name, studio_role, hash_api_token(token)),
            )
        return name, token


@pytest.fixture
def service(cluster: Cluster, depot_template: str, tmp_path: Path) -> Iterator[KillableService]:
    name = f"torture_{secrets.token_hex(6)}"
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER depot_owner STRATEGY file_copy")
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(depot_template)))
    environment = {
        **os.environ,
        "DATABASE_URL": cluster.url(name, "depot_service"),
        "JWT_SECRET": secrets.token_hex(32),
        "ASSET_STORAGE_PATH": str(tmp_path / "store"),
    }
    made = KillableService(
        f"http://127.0.0.1:{any_free()}", cluster.url(name, "depot_owner"), environment, tmp_path / "api.log"
    )
    made.start()
    yield made
    made.kill()
