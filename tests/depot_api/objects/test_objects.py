"""Content in and out: what is told to whom, and that wrong bytes are never served."""

import asyncio
import errno
import gzip
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from depot_api.blobstore import pack
from depot_api.blobstore.store import BlobStore
from depot_api.database.pool import Database, fetch_one
from depot_api.depot import Depot
from depot_api.epochs import EpochFile
from depot_api.identity.actor import Actor
from depot_api.objects import queries
from depot_api.objects.receiving import Sink, receive
from depot_api.objects.service import put_object
from depot_api.problems import Unavailable
from depot_api.settings import Settings


def temporary_files(store: Path) -> list[Path]:
    return [path for path in (store / "tmp").rglob("*") if path.is_file() and path.name != "lock"]


def object_path(store: Path, sha256: str) -> Path:
    return store / "objects" / sha256[:2] / f"{sha256}.bin.gz"


def as_pack(*contents: bytes) -> bytes:
    return b"".join(pack.encode_header(hashlib.sha256(c).hexdigest(), len(c)) + c for c in contents)


def test_the_record_is_committed_when_the_content_is_durable(depot_database, tmp_path, monkeypatch):
    """Invariant 1, down to the row: data, name, directory, and only then what refers to it."""
    steps: list[str] = []
    fsync, replace, commit, record = os.fsync, os.replace, psycopg.AsyncConnection.commit, queries.record_blobs

    def seen_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "data")

    async def seen_commit(connection: psycopg.AsyncConnection) -> None:
        if connection.info.transaction_status is TransactionStatus.INTRANS:
            steps.append("commit")
        await commit(connection)

    async def seen_record(*given) -> bool:
        steps.append("row")
        return await record(*given)

    async def body() -> AsyncIterator[bytes]:
        yield b"content"

    async def scenario() -> None:
        settings = Settings(database_url=depot_database.service_url, jwt_secret="s" * 32)
        database = Database(depot_database.service_url, 1, 1, EpochFile(tmp_path / "cluster-epoch"), 5.0)
        store = BlobStore(tmp_path / "store")
        store.prepare()
        await database.open()
        actor = Actor(user, "test", Depot(settings, database, store))
        try:
            async with actor.transaction() as tx:
                project = await fetch_one(tx, "SELECT create_project('p', '') AS id")
            monkeypatch.setattr(os, "fsync", seen_fsync)
            monkeypatch.setattr(os, "replace", lambda *names: (steps.append("name"), replace(*names)))
            monkeypatch.setattr(psycopg.AsyncConnection, "commit", seen_commit)
            monkeypatch.setattr(queries, "record_blobs", seen_record)
            await put_object(actor, project["id"], None, body(), None)
        finally:
            await database.close()
            store.close()

    with psycopg.connect(depot_database.owner_url) as owner:
        ((user,),) = owner.execute("INSERT INTO users (username, studio_role) VALUES ('u', 'editor') RETURNING id")
    asyncio.run(scenario())
    admitted = ["commit"]
    assert steps == [*admitted, "data", "name", "directory", "row", "commit"]


def test_wrong_hash_stores_nothing(api, project):
    before = set(temporary_files(api.store))  # the service is shared: uploads that other tests cut may still be there
    claimed = hashlib.sha256(os.urandom(32)).hexdigest()  # of nothing that any test sends
    response = project.http.put(f"/projects/{project.id}/objects/{claimed}", content=b"bytes")
    assert (response.status_code, response.json()["title"]) == (422, "The bytes do not have that hash")
    assert not object_path(api.store, claimed).exists()
    assert set(temporary_files(api.store)) <= before


def test_missing_tells_only_what_the_asker_may_know(api, project, new_project):
    sha256 = project.put(b"known here")
    ask = {"sha256": [sha256]}
    assert project.http.post(f"/projects/{project.id}/objects/missing", json=ask).json() == {"missing": []}
    elsewhere = new_project()
    assert elsewhere.http.post(f"/projects/{elsewhere.id}/objects/missing", json=ask).json()["missing"] == [sha256]
    colleague = project.member("contributor")
    path = f"/projects/{project.id}/objects/missing"
    assert colleague.http.post(path, json=ask).json()["missing"] == [sha256], (
        "sent by someone else, referred to by none"
    )
    project.submit([{"action": "add", "path": "a", "sha256": sha256}])
    assert colleague.http.post(path, json=ask).json()["missing"] == []
    assert api.user().http.post(path, json=ask).status_code == 404


def test_a_truncated_object_is_missing_never_served_and_healed_by_sending_it(api, project):
    content = os.urandom(5000)
    sha256 = project.put(content)
    path = object_path(api.store, sha256)
    os.truncate(path, path.stat().st_size - 7)
    url = f"/projects/{project.id}/objects"
    assert project.http.post(f"{url}/missing", json={"sha256": [sha256]}).json()["missing"] == [sha256]
    response = project.http.get(f"{url}/{sha256}")
    assert (response.status_code, response.json()["title"]) == (502, "The stored content is damaged")
    assert project.http.post(f"{url}/fetch", json={"sha256": [sha256]}).status_code == 502
    project.put(content)
    assert project.http.get(f"{url}/{sha256}").content == content


@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_a_flipped_byte_is_never_served(api, project, accept):
    content = os.urandom(5000)
    sha256 = project.put(content)
    path = object_path(api.store, sha256)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    url = f"/projects/{project.id}/objects/{sha256}"
    assert project.http.get(url, headers={"Accept-Encoding": accept}).status_code == 502
    assert project.http.get(url, headers={"Accept-Encoding": accept, "Range": "bytes=0-9"}).status_code == 502


def test_ranges_codings_and_conditions(project):
    content = b"".join(b"line %d\n" % n for n in range(10_000))
    sha256 = project.put(content)
    url = f"/projects/{project.id}/objects/{sha256}"
    identity = {"Accept-Encoding": "identity"}
    whole = project.http.get(url, headers=identity)
    assert (whole.status_code, whole.content, whole.headers["content-length"]) == (200, content, str(len(content)))
    assert "content-encoding" not in whole.headers
    with project.http.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as coded:
        raw = b"".join(coded.iter_raw())
    assert coded.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == content
    assert len(raw) < len(content) / 2
    for header, expected in (
        ("bytes=0-0", content[:1]),
        ("bytes=100-199", content[100:200]),
        ("bytes=-5", content[-5:]),
        (f"bytes={len(content) - 1}-", content[-1:]),
    ):
        part = project.http.get(url, headers={**identity, "Range": header})
        assert (part.status_code, part.content) == (206, expected)
    for unreadable in (f"bytes={'9' * 5000}-", f"bytes=-{'9' * 5000}", "bytes=١-".encode(), "bytes=5-1", "bytes=-"):
        ignored = project.http.get(url, headers={**identity, "Range": unreadable})
        assert (ignored.status_code, ignored.content) == (200, content)
    beyond = project.http.get(url, headers={**identity, "Range": f"bytes={len(content)}-"})
    assert beyond.status_code == 416
    for etag in (whole.headers["etag"], coded.headers["etag"]):
        assert project.http.get(url, headers={"If-None-Match": etag}).status_code == 304


def test_a_pack_is_all_or_nothing(api, project):
    good, headers = [b"one", b"", b"three" * 1000], {"Content-Type": pack.MEDIA_TYPE}
    url = f"/projects/{project.id}/objects"
    response = project.http.post(f"{url}/pack", content=as_pack(*good), headers=headers)
    assert response.status_code == 201, response.text
    hashes = [hashlib.sha256(content).hexdigest() for content in good]
    assert [stored["sha256"] for stored in response.json()["stored"]] == hashes
    fetched = project.http.post(f"{url}/fetch", json={"sha256": hashes}).content
    entries, reader = [], pack.PackReader()
    for event in reader.feed(fetched):
        if isinstance(event, pack.EntryStart):
            entries.append(b"")
        elif isinstance(event, pack.EntryData):
            entries[-1] += bytes(event.data)
    assert [zlib.decompress(entry, 31) for entry in entries] == good
    before = set(temporary_files(api.store))
    new = os.urandom(100)
    for broken in (as_pack(new)[:-1], as_pack(new) + pack.encode_header(hashes[0], 3) + b"bad"):
        assert project.http.post(f"{url}/pack", content=broken, headers=headers).status_code == 422
        assert not object_path(api.store, hashlib.sha256(new).hexdigest()).exists()
    assert set(temporary_files(api.store)) <= before


def test_a_connection_cut_leaves_nothing(own_api):
    with own_api.client() as http:
        project = http.post("/projects", json={"name": "cut"}).json()["id"]
    host, port = own_api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"PUT /projects/{project}/objects/{'0' * 64} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
            f"Authorization: Bearer {own_api.token}\r\n\r\n".encode()
            + os.urandom(3 << 20)
        )
        wait_for(lambda: temporary_files(own_api.store) != [])
    wait_for(lambda: temporary_files(own_api.store) == [])


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_store_that_cannot_be_written_is_no_error_of_ours():
    def read_only() -> Sink:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    with pytest.raises(Unavailable, match="Nothing was stored"):
        asyncio.run(receive(BlobStore(Path("unused")), body(), read_only))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", directory], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("only root may mount a small file system")
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_full_disk(cluster, depot_template, tmp_path, small_disk, running_api_factory, monkeypatch):
    """507 and nothing stored; /health says so; reading goes on; and it recovers when there is room."""
    make_project, running_api = running_api_factory
    monkeypatch.setenv("STORAGE_MIN_FREE_BYTES", "0")
    with running_api(cluster, depot_template, tmp_path, store=small_disk / "store") as api:
        project = make_project(api)
        kept = project.put(b"kept")
        large = os.urandom(30 << 20)
        url = f"/projects/{project.id}/objects"
        response = project.http.put(f"{url}/{hashlib.sha256(large).hexdigest()}", content=large)
        assert (response.status_code, response.json()["title"]) == (507, "The store has no room")
        assert temporary_files(api.store) == []
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
        assert project.http.put(f"{url}/{hashlib.sha256(b'x').hexdigest()}", content=b"x").status_code == 507
        health = project.http.get("/health")
        assert (health.status_code, health.json()["checks"]["storage"]["status"]) == (503, "unavailable")
        assert project.http.get(f"{url}/{kept}").content == b"kept"
        filler.unlink()
        project.put(b"x")
        assert project.http.get("/health").status_code == 200
