"""A depot's history written by hand, objects in a bucket, and a server that keeps a bucket's configuration."""

import hashlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import yaml

from depot_ops.tiering.bucket import TieredBucket, open_bucket

BIG = 200 << 10
Ids = tuple[uuid.UUID, uuid.UUID]
POLICY = {
    "version": 1,
    "rules": [
        {"name": "archived", "when": {"branch_state": ["archived"]}, "storage_class": "DEEP_ARCHIVE"},
        {
            "name": "old textures",
            "when": {"type": ["texture"], "path": ["Content/**"], "older_than_days": 100},
            "storage_class": "GLACIER",
        },
        {"name": "old", "when": {"older_than_days": 30}, "storage_class": "STANDARD_IA", "keep_on_disk": False},
    ],
}


@dataclass
class History:
    """Rows of the catalogue, as submits would have written them."""

    url: str
    user: uuid.UUID = field(default_factory=uuid.uuid4)
    number: int = 0
    branches: dict[tuple[str, str], Ids] = field(default_factory=dict)
    assets: dict[tuple[uuid.UUID, str], uuid.UUID] = field(default_factory=dict)

    def connect(self) -> psycopg.Connection:
        """Past triggers and foreign keys: who refers to what is all that counts here."""
        return psycopg.connect(self.url, autocommit=True, options="-c session_replication_role=replica")

    def branch(
        self, project: str = "Hero", branch: str = "main", status: str = "active"
    ) -> tuple[uuid.UUID, uuid.UUID]:
        if (project, branch) in self.branches:
            return self.branches[project, branch]
        known = [ids[0] for (name, _), ids in self.branches.items() if name == project]
        ids = (known[0] if known else uuid.uuid4(), uuid.uuid4())
        with self.connect() as db:
            if not known:
                db.execute(
                    "INSERT INTO projects (id, name, status, created_by) VALUES (%s, %s, %s, %s)",
                    (ids[0], project, status, self.user),
                )
            db.execute(
                "INSERT INTO branches (id, project_id, name, created_by) VALUES (%s, %s, %s, %s)",
                (ids[1], ids[0], branch, self.user),
            )
            self._lineage(db, ids, 0, ids[1], (1 << 63) - 1)
        self.branches[project, branch] = ids
        return ids

    def inherit(self, project: str, branch: str, parent: str, upto: int) -> None:
        """`branch` sees `parent` as of that changelist."""
        ids = self.branch(project, branch)
        with self.connect() as db:
            self._lineage(db, ids, 1, self.branch(project, parent)[1], upto)

    def _lineage(self, db, ids, depth, ancestor, upto) -> None:
        db.execute(
            """INSERT INTO branch_lineage (project_id, branch_id, depth, ancestor_id, upto_no)
               VALUES (%s, %s, %s, %s, %s)""",
            (*ids, depth, ancestor, upto),
        )

    def label(self, project: str, branch: str) -> None:
        ids = self.branch(project, branch)
        with self.connect() as db:
            db.execute(
                "INSERT INTO labels (project_id, name, branch_id, at_no, created_by) VALUES (%s, 'v1', %s, 1, %s)",
                (*ids, self.user),
            )

    def blob(self, sha256: str, stored_bytes: int) -> None:
        with self.connect() as db:
            db.execute(
                """INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32) VALUES (%s, %s, %s, 0)
                   ON CONFLICT DO NOTHING""",
                (bytes.fromhex(sha256), stored_bytes, stored_bytes),
            )

    def version(
        self,
        sha256: str,
        path: str = "Content/a.uasset",
        days_old: float = 0,
        project: str = "Hero",
        branch: str = "main",
        asset_type: str = "",
    ) -> int:
        """Submit this content; the changelist's number."""
        project_id, branch_id = self.branch(project, branch)
        self.number += 1
        with self.connect() as db:
            key = (project_id, path)
            if key not in self.assets:
                self.assets[key] = uuid.uuid4()
                db.execute(
                    """INSERT INTO assets (id, project_id, path_key, path, asset_type, created_by)
                       VALUES (%s, %s, %s, %s, %s, %s)""",
                    (self.assets[key], project_id, path.lower(), path, asset_type, self.user),
                )
            asset, content = self.assets[key], bytes.fromhex(sha256)
            db.execute(
                """INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id,
                       changelist_id, changelist_no, author_id, created_at)
                   VALUES (%s, %s, %s, %s, 1, 'edit', %s, %s, %s, %s, now() - %s)""",
                (
                    *(project_id, asset, self.number, content, branch_id, uuid.uuid4(), self.number, self.user),
                    timedelta(days=days_old),
                ),
            )
            db.execute(
                """INSERT INTO branch_heads
                       (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256, size_bytes)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 1)""",
                (project_id, branch_id, path.lower(), self.number, path, asset, self.number, content),
            )
        return self.number

    def shelve(self, sha256: str, path: str, days_old: float = 0) -> None:
        project_id, branch_id = self.branch()
        shelf = uuid.uuid4()
        with self.connect() as db:
            db.execute(
                """INSERT INTO shelves (id, project_id, branch_id, owner_id, created_at)
                   VALUES (%s, %s, %s, %s, now() - %s)""",
                (shelf, project_id, branch_id, self.user, timedelta(days=days_old)),
            )
            db.execute(
                """INSERT INTO shelf_items (project_id, shelf_id, path_key, path, action, sha256)
                   VALUES (%s, %s, %s, %s, 'add', %s)""",
                (project_id, shelf, path.lower(), path, bytes.fromhex(sha256)),
            )


@pytest.fixture
def history(depot_database) -> History:
    return History(depot_database.superuser_url)


@dataclass
class Shelf:
    """Objects of the store in a bucket, in the class that a test wants."""

    client: object
    name: str
    bucket: TieredBucket

    def put(self, what: str, storage_class: str = "STANDARD", size_bytes: int = BIG) -> str:
        """An object whose content is named so; its hash."""
        sha256 = hashlib.sha256(what.encode()).hexdigest()
        body = hashlib.shake_128(what.encode()).digest(size_bytes)
        self.client.put_object(
            Bucket=self.name,
            Key=self.key(sha256),
            Body=body,
            StorageClass=storage_class,
            Metadata={"sha256": hashlib.sha256(body).hexdigest()},
        )
        return sha256

    def key(self, sha256: str) -> str:
        return f"depot/objects/{sha256[:2]}/{sha256}.bin.gz"

    def head(self, sha256: str) -> dict:
        return self.client.head_object(Bucket=self.name, Key=self.key(sha256))

    def storage_class(self, sha256: str) -> str:
        return self.head(sha256).get("StorageClass", "STANDARD")


@pytest.fixture
def shelf(bucket) -> Shelf:
    return Shelf(bucket.client, bucket.name, open_bucket(bucket.url))


@pytest.fixture
def policy_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiering.yaml"
    path.write_text(yaml.safe_dump(POLICY))
    return path


@pytest.fixture
def configured(shelf, depot_database, policy_path, tmp_path, monkeypatch) -> Shelf:
    """The bucket, and settings that name it, the policy and the catalogue."""
    environment = {
        "BLOB_COPY_URL": f"s3://{shelf.name}/depot",
        "TIER_POLICY_PATH": str(policy_path),
        "DEPOT_DUMP_URL": depot_database.dump_url,
        "ASSET_STORAGE_PATH": str(tmp_path / "store"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return shelf


class ConfigurationServer(ThreadingHTTPServer):
    """Keeps a bucket's lifecycle and Intelligent-Tiering as S3 does: what was written is read, whole."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents: dict[str, bytes] = {}
        self.writes: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: ConfigurationServer

    def _name(self) -> str:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return "lifecycle" if "lifecycle" in query else f"tiering {query['id'][0]}"

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_GET(self) -> None:
        if found := self.server.documents.get(self._name()):
            self._answer(200, found)
            return
        code = "NoSuchLifecycleConfiguration" if self._name() == "lifecycle" else "NoSuchConfiguration"
        self._answer(404, f"<Error><Code>{code}</Code></Error>".encode())

    def do_PUT(self) -> None:
        self.server.documents[self._name()] = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.writes.append(self._name())
        self._answer(200, b"")

    def do_DELETE(self) -> None:
        del self.server.documents[self._name()]
        self.server.writes.append(self._name())
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def configuration(monkeypatch) -> Iterator[ConfigurationServer]:
    for name, value in {
        "S3_REGION": "eu-north-1",
        "S3_ACCESS_KEY_ID": "KEYFORTESTS",
        "S3_SECRET_ACCESS_KEY": "secret-for-tests",
    }.items():
        monkeypatch.setenv(name, value)
    with ConfigurationServer() as server:
        monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
