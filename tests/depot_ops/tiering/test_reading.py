"""Content that has left the service's disk is read from the mirror, the bucket, or hours later from an archive."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from depot_api.blobstore.layout import Layout
from depot_api.client import DepotClient, sync_tree
from depot_api.client.progress import Stage
from depot_ops.blobs.mirror import open_mirror
from tests.depot_api.conftest import Api, Project, make_project, running_api

BIG = 2 << 20  # alone, not in a pack


@dataclass
class Evicting:
    """A service whose objects lie in its mirror and in a bucket too."""

    api: Api
    project: Project
    mirror: Path
    client: Any
    bucket: str

    def add(self, seed: int, size_bytes: int = 200_000) -> tuple[str, bytes]:
        content = random.Random(seed).randbytes(size_bytes)
        self.project.add(f"Content/{seed}.bin", content)
        sha256 = self.project.put(content)
        with open_mirror(self.api.store, self.mirror) as mirror:
            mirror.reconcile()
        return sha256, content

    def push(self, sha256: str, storage_class: str = "STANDARD") -> None:
        body = Layout(self.mirror).object_path(sha256).read_bytes()
        self.client.put_object(Bucket=self.bucket, Key=self.key(sha256), Body=body, StorageClass=storage_class)

    def key(self, sha256: str) -> str:
        return f"depot/objects/{sha256[:2]}/{sha256}.bin.gz"

    def evict(self, sha256: str, *, from_mirror: bool = False) -> None:
        """As `depot-ops tier evict` does; `from_mirror`: and then the mirror is lost."""
        with psycopg.connect(self.api.owner_url) as owner:
            owner.execute("UPDATE blobs SET evicted_at = now() WHERE sha256 = %s", (bytes.fromhex(sha256),))
        Layout(self.api.store).object_path(sha256).unlink()
        if from_mirror:
            Layout(self.mirror).object_path(sha256).unlink()

    def archived(self, seed: int, size_bytes: int = 200_000) -> tuple[str, bytes]:
        sha256, content = self.add(seed, size_bytes)
        self.push(sha256, "GLACIER")
        self.evict(sha256, from_mirror=True)
        return sha256, content

    def get(self, sha256: str, **headers: str):
        return self.project.http.get(f"/projects/{self.project.id}/objects/{sha256}", headers=headers)

    def on_disk(self, sha256: str) -> bool:
        return Layout(self.api.store).object_path(sha256).exists()


@pytest.fixture(scope="module")
def evicting(moto_s3, cluster, depot_template, tmp_path_factory) -> Iterator[Evicting]:
    directory = tmp_path_factory.mktemp("evicting")
    environment = {
        **moto_s3.environment,
        "ASSET_STORAGE_REPLICA_PATH": str(directory / "mirror"),
        "BLOB_COPY_URL": f"{moto_s3.bucket('evicting')}/depot",
        "RESTORE_RETRY_SECONDS": "1",
        "S3_ATTEMPTS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with running_api(cluster, depot_template, directory) as api:
            yield Evicting(api, make_project(api), directory / "mirror", moto_s3.client(), "evicting")


@pytest.mark.parametrize("from_mirror", [False, True], ids=["from the mirror", "from the bucket"])
def test_evicted_content_is_read_byte_for_byte(evicting, from_mirror):
    sha256, content = evicting.add(10 + from_mirror)
    evicting.push(sha256)
    evicting.evict(sha256, from_mirror=from_mirror)
    part = evicting.get(sha256, Range="bytes=100-299")
    assert (part.status_code, part.content) == (206, content[100:300])
    assert evicting.on_disk(sha256)
    assert evicting.get(sha256).content == content


def test_evicted_content_is_had(evicting):
    """Nobody has to send it again, and it can be submitted."""
    sha256, content = evicting.add(20)
    evicting.evict(sha256)
    url = f"/projects/{evicting.project.id}/objects/missing"
    assert evicting.project.http.post(url, json={"sha256": [sha256]}).json() == {"missing": []}
    evicting.project.submit([{"action": "add", "path": "Content/copy.bin", "sha256": sha256}])
    assert not evicting.on_disk(sha256)
    assert evicting.get(sha256).content == content


def test_a_damaged_copy_is_never_served(evicting):
    sha256, _ = evicting.add(30)
    evicting.push(sha256)
    evicting.evict(sha256)
    Layout(evicting.mirror).object_path(sha256).write_bytes(b"not this")
    evicting.client.put_object(Bucket=evicting.bucket, Key=evicting.key(sha256), Body=b"nor this")
    answer = evicting.get(sha256)
    assert (answer.status_code, answer.json()["type"].rsplit(":")[-1]) == (502, "content-damaged")
    assert not evicting.on_disk(sha256)


def test_a_mirror_that_is_damaged_is_passed_over(evicting):
    sha256, content = evicting.add(31)
    evicting.push(sha256)
    evicting.evict(sha256)
    Layout(evicting.mirror).object_path(sha256).write_bytes(b"not this")
    assert evicting.get(sha256).content == content


def test_from_an_archive_in_two_requests(evicting):
    sha256, content = evicting.archived(40)
    first = evicting.get(sha256)
    assert (first.status_code, first.headers["Retry-After"], first.json()["sha256"]) == (202, "1", [sha256])
    assert "Restore" in evicting.client.head_object(Bucket=evicting.bucket, Key=evicting.key(sha256))
    second = evicting.get(sha256)
    assert (second.status_code, second.content) == (200, content)


def test_a_pack_asks_for_everything_at_once(evicting):
    archived = [evicting.archived(50 + n) for n in range(3)]
    there, _ = evicting.add(59)
    hashes = [sha256 for sha256, _ in archived]
    url = f"/projects/{evicting.project.id}/objects/fetch"
    first = evicting.project.http.post(url, json={"sha256": [*hashes, there]})
    assert (first.status_code, sorted(first.json()["sha256"])) == (202, sorted(hashes))
    assert evicting.project.http.post(url, json={"sha256": [*hashes, there]}).status_code == 200


class Told:
    """The stages of some work, in order."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def begin(self, stage: Stage, size_bytes: int) -> None:
        self.stages.append(stage)

    def advance(self, size_bytes: int) -> None:
        pass


def test_a_sync_waits_for_the_archive(evicting, tmp_path):
    """Small content in packs, and large by itself; what an archive has comes last, all of it together."""
    own = replace(evicting, project=make_project(evicting.api))
    contents = [own.archived(60)[1], own.archived(61, BIG)[1], own.archived(62, BIG)[1], own.add(63, BIG)[1]]
    told = Told()
    with DepotClient(evicting.api.url, evicting.api.token) as depot:
        project, branch = depot.project(UUID(own.project.id)), depot.branch(UUID(own.project.main))
        result = sync_tree(depot, tmp_path, project, branch, progress=told)
        again = [piece for piece in depot.object_content(UUID(own.project.id), own.archived(64)[0])]
    assert result.fetched == 4
    assert [(tmp_path / "Content" / f"{n}.bin").read_bytes() for n in (60, 61, 62, 63)] == contents
    assert told.stages[-3:] == ["Fetching", "Waiting for an archive", "Fetching"]
    assert b"".join(again) == random.Random(64).randbytes(200_000)


def test_when_the_bucket_refuses_it_is_a_matter_of_time(evicting):
    sha256, content = evicting.add(70)
    evicting.push(sha256)
    evicting.evict(sha256, from_mirror=True)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{evicting.bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    evicting.client.put_bucket_policy(Bucket=evicting.bucket, Policy=policy)
    try:
        refused = evicting.get(sha256)
    finally:
        evicting.client.delete_bucket_policy(Bucket=evicting.bucket)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert evicting.get(sha256).content == content


def test_what_no_copy_has_is_told_as_damage(evicting):
    sha256, _ = evicting.add(80)
    evicting.push(sha256)
    evicting.evict(sha256, from_mirror=True)
    evicting.client.delete_object(Bucket=evicting.bucket, Key=evicting.key(sha256))
    assert evicting.get(sha256).status_code == 502
    assert not evicting.on_disk(sha256)


def test_a_command_that_waits_says_so(evicting, tmp_path):
    """Where no bar can be drawn."""
    own = replace(evicting, project=make_project(evicting.api))
    content = own.archived(90)[1]
    environment = {**os.environ, "DEPOT_URL": own.api.url, "DEPOT_TOKEN": own.api.token}
    program = [sys.executable, "-c", "from depot_api.cli import main; main()"]
    done = subprocess.run(
        [*program, "sync", str(tmp_path), "--project", own.project.name],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "200,000 bytes are being restored from an archive" in done.stderr
    assert (tmp_path / "Content" / "90.bin").read_bytes() == content
