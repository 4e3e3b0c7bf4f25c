"""Primary, store and catalogue are gone; from backups, log and mirror alone the depot comes back, and serves it all."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from depot_api.database.bootstrap import ROLES
from depot_ops.blobs.mirror import open_mirror
from depot_ops.copies.copying import copy_backups
from depot_ops.local.ports import any_free
from depot_ops.places import open_place
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.base_backup import take_base_backup
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.collector import collect
from depot_ops.postgres.wal.progress import check_freshness

PASSWORD = "only-for-tests"


class Studio:
    """A depot with an archiving primary of its own, and what it would be rebuilt from."""

    def __init__(self, home: Path) -> None:
        account = server_account()
        self.binaries = runnable_binaries(find_binaries(), account)
        self.home, self.store, self.mirror = home, home / "store", home / "mirror"
        self.backup_dir, self.archive_root = home / "backups", home / "archive"
        settings = {**archiving(home / "c", self.binaries.major), "fsync": "off", "wal_init_zero": "off"}
        self.cluster = Cluster(home / "c", any_free(), PASSWORD, self.binaries, account, settings)

    def create(self) -> None:
        self.cluster.initialize()
        self.cluster.start()
        environment = {
            **os.environ,
            "DEPOT_BOOTSTRAP_URL": self.cluster.url(),
            **{f"{role.upper()}_PASSWORD": PASSWORD for role in ROLES},
            "DATABASE_OWNER_URL": self.cluster.url("depot", "depot_owner"),
        }
        for command in ("bootstrap", "upgrade"):
            subprocess.run([sys.executable, "-m", "depot_api.database", command], env=environment, check=True)

    def back_up(self) -> None:
        take_base_backup(self.cluster.url(), self.backup_dir, self.binaries)

    def copy_away(self) -> None:
        """Everything so far into the archive of the log and the mirror."""
        with psycopg.connect(self.cluster.url()) as server:
            system = server.execute("SELECT system_identifier FROM pg_control_system()").fetchone()[0]
        archive = WalArchive(self.archive_root, system)
        spool = self.cluster.wal_spool

        def collect_all() -> None:
            collect(spool, self.archive_root)

        finding = check_freshness(self.cluster.url(), archive, collect=collect_all)
        assert finding.status == "healthy", finding.detail
        with open_mirror(self.store, self.mirror) as mirror:
            assert mirror.reconcile().is_complete

    def finish_segment(self) -> None:
        """Nobody collects it."""
        with psycopg.connect(self.cluster.url(), autocommit=True) as server:
            segment = server.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchone()[0]
            server.execute("SELECT pg_switch_wal()")
        wait_until((self.cluster.wal_spool / segment).exists)

    def lose_everything(self) -> None:
        """But for what the collector had not come to."""
        self.cluster.process.send_signal(signal.SIGQUIT)
        self.cluster.stop()
        for lost in (self.cluster.data, self.store):
            shutil.rmtree(lost)

    def push(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "depot_ops", "blobs", "push"]
        settings = {**os.environ, **environment, "ASSET_STORAGE_PATH": str(self.store)}
        subprocess.run(command, env=settings, check=True, stdout=subprocess.DEVNULL)

    def rebuilding(self, content: dict[str, str], *options: str) -> subprocess.Popen[str]:
        """As a person does, from an environment that names nothing but what is left."""
        environment = {
            **os.environ,
            "BACKUP_DIR": str(self.backup_dir),
            "WAL_ARCHIVE_DIR": str(self.archive_root),
            "WAL_SPOOL_DIR": str(self.cluster.wal_spool),
            **content,
            "ASSET_STORAGE_PATH": str(self.store),
            "DEPOT_PG_BINDIR": str(self.binaries.bindir),
        }
        command = [sys.executable, "-m", "depot_ops", "disaster-restore", "--data", self.cluster.data, "--json"]
        command += options
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def rebuild(self, content: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
        with self.rebuilding(content, *options) as process:
            stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def killed(self, content: dict[str, str], when: str) -> None:
        """kill -9 as soon as it says that, and wait for the end of the server that it had started."""
        with self.rebuilding(content) as process:
            told = []
            for line in process.stderr:
                told.append(line)
                if line.startswith(when):
                    process.kill()
            assert process.wait() == -signal.SIGKILL, "".join(told)
        wait_until(lambda: not self._servers())

    def _servers(self) -> list[bytes]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                found.append((process / "cmdline").read_bytes())
        return [command for command in found if str(self.home).encode() in command and b"/postgres\0" in command]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def studio(reachable_dir):
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    made = Studio(home)
    made.create()
    yield made
    made.cluster.stop()
    shutil.rmtree(home)


def test_a_depot_is_rebuilt_from_its_copies(studio, running_api_factory, rclone_s3, tmp_path):
    bucket = rclone_s3.environment | {"BLOB_COPY_URL": rclone_s3.bucket("disaster")}
    make_project, running_api = running_api_factory
    start = (studio.cluster, "", tmp_path, studio.store, "depot")
    with running_api(*start) as api:
        project = make_project(api)
        contents = [f"texture {n} ".encode() * 50 for n in range(12)]
        for n, content in enumerate(contents[:6]):
            project.add(f"Content/{n}.uasset", content)
        studio.back_up()
        for n, content in enumerate(contents[6:]):
            item = {"action": "edit", "path": f"Content/{n}.uasset", "base_version": 1, "sha256": project.put(content)}
            project.submit([item])
        studio.copy_away()
        studio.push(bucket)
        item = {"action": "edit", "path": "Content/1.uasset", "base_version": 2, "sha256": project.put(contents[1])}
        project.submit([item])
        heads = project.heads()
        studio.finish_segment()
    studio.lose_everything()

    hidden = studio.mirror / "objects" / (sha256 := hashlib.sha256(contents[0]).hexdigest())[:2] / f"{sha256}.bin.gz"
    hidden.write_bytes(hidden.read_bytes()[:-1] + b"!")
    mirror = {"ASSET_STORAGE_REPLICA_PATH": str(studio.mirror)}
    for moment in ("replaying the log", "the cluster is back"):
        studio.killed(mirror, moment)
    (studio.cluster.data / "postmaster.pid").write_text(f"{1 << 22}\n")  # as where the machine died with it
    incomplete = studio.rebuild(mirror)
    report = json.loads(incomplete.stdout)
    assert report["cluster"]["spooled_segments"] == 1
    assert (incomplete.returncode, report["content"]["lost_objects"]) == (1, 1), incomplete.stderr
    assert report["content"]["affected"] == [{"project": project.name, "path": "Content/0.uasset", "version": 1}]
    assert not (studio.store / "objects" / sha256[:2] / f"{sha256}.bin.gz").exists(), "never wrong bytes"

    shutil.rmtree(studio.mirror)
    studio.killed(bucket, "the content is back")
    done = studio.rebuild(bucket)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert (report["content"]["objects"], report["content"]["copied_objects"]) == (len(contents), 0), "it went on"
    left = [path.name for path in studio.cluster.data.parent.iterdir()]
    assert not [name for name in left if name.startswith((".partial", ".restored")) or name.endswith(".json")], left

    studio.cluster.initialize()
    studio.cluster.start()
    with running_api(*start) as api:
        project.api, project.http = api, api.client()
        assert project.heads() == heads
        served = {}
        for asset in project.http.get("/assets", params={"project_id": project.id}).json()["items"]:
            for number in range(1, asset["last_version"] + 1):
                response = project.http.get(f"/assets/{asset['id']}/versions/{number}/content")
                served[asset["path"], number] = response.content
        wanted = {(f"Content/{n % 6}.uasset", 1 + n // 6): content for n, content in enumerate(contents)}
        wanted["Content/1.uasset", 3] = contents[1]
        assert served == wanted
        assert project.add("Content/after.uasset", b"work goes on") == len(contents) + 2
    assert len(list((studio.store / "refs").rglob("*.json"))) >= len(contents)


def test_backups_and_archive_are_lost_too(studio, running_api_factory, tmp_path):
    second = studio.home / "second"
    second.mkdir()
    make_project, running_api = running_api_factory
    start = (studio.cluster, "", tmp_path, studio.store, "depot")
    with running_api(*start) as api:
        project = make_project(api)
        project.add("Content/backed up.uasset", b"in the base backup")
        studio.back_up()
        project.add("Content/archived.uasset", b"in the archive's copy")
        studio.copy_away()
        assert copy_backups(studio.backup_dir, studio.archive_root, open_place(second.as_uri())).refused == ()
        project.submit([{"action": "delete", "path": "Content/archived.uasset", "base_version": 1}])
        studio.finish_segment()
        heads = project.heads()
    studio.lose_everything()
    for lost in (studio.backup_dir, studio.archive_root):
        shutil.rmtree(lost)

    left = {"ASSET_STORAGE_REPLICA_PATH": str(studio.mirror), "BACKUP_COPY_URL": second.as_uri()}
    assert "--from-copy" in studio.rebuild(left).stderr
    done = studio.rebuild(left, "--from-copy")
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["cluster"]["spooled_segments"] == 1
    studio.cluster.initialize()
    studio.cluster.start()
    with running_api(*start) as api:
        project.api, project.http = api, api.client()
        assert project.heads() == heads
