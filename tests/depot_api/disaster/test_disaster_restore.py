"""Primary, store and catalogue are gone; from backups, log and mirror alone the depot comes back, and serves it all."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from depot_api.database.bootstrap import ROLES
from depot_ops.blobs.mirror import open_mirror
from depot_ops.local.ports import any_free
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

    def lose_everything(self) -> None:
        self.cluster.process.send_signal(signal.SIGQUIT)
        self.cluster.stop()
        for lost in (self.cluster.data, self.cluster.wal_spool, self.store):
            shutil.rmtree(lost)

    def rebuild(self) -> subprocess.CompletedProcess[str]:
        """As a person does, from an environment that names nothing but the copies."""
        environment = {
            **os.environ,
            "BACKUP_DIR": str(self.backup_dir),
            "WAL_ARCHIVE_DIR": str(self.archive_root),
            "ASSET_STORAGE_REPLICA_PATH": str(self.mirror),
            "ASSET_STORAGE_PATH": str(self.store),
            "DEPOT_PG_BINDIR": str(self.binaries.bindir),
        }
        command = [sys.executable, "-m", "depot_ops", "disaster-restore", "--data", self.cluster.data, "--json"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def studio(reachable_dir):
    home = Path(tempfile.mkdtemp(dir=reachable_dir))
    home.chmod(0o711)
    made = Studio(home)
    made.create()
    yield made
    made.cluster.stop()
    shutil.rmtree(home)


def test_a_depot_is_rebuilt_from_its_copies(studio, running_api_factory, tmp_path):
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
        heads = project.heads()
        studio.copy_away()
    studio.lose_everything()

    hidden = studio.mirror / "objects" / (sha256 := hashlib.sha256(contents[0]).hexdigest())[:2] / f"{sha256}.bin.gz"
    kept = hidden.read_bytes()
    hidden.write_bytes(kept[:-1] + b"!")
    incomplete = studio.rebuild()
    report = json.loads(incomplete.stdout)
    assert (incomplete.returncode, report["content"]["lost_objects"]) == (1, 1), incomplete.stderr
    assert report["content"]["affected"] == [{"project": project.name, "path": "Content/0.uasset", "version": 1}]
    assert not (studio.store / "objects" / sha256[:2] / f"{sha256}.bin.gz").exists(), "never wrong bytes"

    hidden.write_bytes(kept)
    done = studio.rebuild()
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert (report["content"]["objects"], report["content"]["copied_objects"]) == (len(contents), 1), "it went on"

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
        assert served == wanted
        assert project.add("Content/after.uasset", b"work goes on") == len(contents) + 1
    assert len(list((studio.store / "refs").rglob("*.json"))) >= len(contents)
