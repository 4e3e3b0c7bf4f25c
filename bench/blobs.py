"""The copies of the blob store beside plain tools, and planning over many records: time, and memory that stays flat."""

import hashlib
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import psycopg
from isal import isal_zlib

from bench.backups import add_ratio
from bench.results import Results, timed
from bench.stack import BIN, Stack
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.store import BlobStore
from depot_ops.blobs.inventory import PREFIXES
from depot_ops.blobs.mirror import open_mirror
from depot_ops.blobs.records import BlobRecords, Recorded
from depot_ops.blobs.scrub import ScrubOptions, open_scrubber
from depot_ops.local.ports import any_free
from depot_ops.tiering.bucket import Listed
from depot_ops.tiering.catalogue import open_catalogue
from depot_ops.tiering.plan import Tally
from depot_ops.tiering.policy import Policy

PAPER_OBJECTS = 200_000
PLANNED_RECORDS = 1_000_000
WORKERS = 2
PUSH_WORKERS = 4
GZIP_MEMBER = 31
COPY = ("rsync", "-a") if shutil.which("rsync") else ("cp", "-a")
RECORDS = """
    INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32)
    SELECT sha256(int8send(n)), 1, 1, 0 FROM generate_series(1, %s) n ON CONFLICT DO NOTHING
"""


class PaperRecords(BlobRecords):
    """What an upload would have recorded, without a database."""

    def __init__(self, blobs: Sequence[StoredBlob]) -> None:
        written_at = datetime.now(UTC) - timedelta(days=1)
        self._blobs = {blob.sha256: Recorded(blob, written_at) for blob in blobs}

    def of_prefix(self, prefix: str) -> dict[str, Recorded]:
        return {sha256: known for sha256, known in self._blobs.items() if sha256.startswith(prefix)}

    def of(self, hashes: Sequence[str]) -> dict[str, Recorded]:
        return {sha256: self._blobs[sha256] for sha256 in hashes}


def bench_copies(results: Results, work: Path, tree: Path, rounds: int) -> None:
    """Mirror and scrub of a tree's objects."""
    store, mirror, plain = work / "store", work / "mirror", work / "plain"
    blobs = fill(store, tree)
    ours, baseline, scrubs, reads = [], [], [], []
    for _ in range(rounds):
        os.sync()
        baseline.append(timed(lambda: copy_and_sync(store / "objects", plain, *COPY)))
        os.sync()
        ours.append(timed(lambda: reconcile(store, mirror)))
        with open_scrubber(store, mirror, PaperRecords(blobs), ScrubOptions(workers=WORKERS)) as scrubber:
            scrubs.append(timed(lambda: scrubber.scrub(PREFIXES)))
        reads.append(timed(lambda: hash_all(blobs, store, mirror)))
        for leftover in (mirror, plain, store / "mirrored-to"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    size = f"{sum(blob.stored_bytes for blob in blobs) / 1e9:.1f} GB in {len(blobs):,} objects"
    add_ratio(results, f"mirror of {size}", ours, f"{' '.join(COPY)}; sync", baseline, "≤ 1.2")
    add_ratio(results, f"scrub of both copies, {WORKERS} workers", scrubs, "gunzip and SHA-256", reads, "≤ 1.25")


def bench_push(results: Results, work: Path, rounds: int) -> None:
    """The store of `bench_copies` into a bucket on this machine, by us and by rclone."""
    store, server = work / "store", work / "bucket-server"
    for number in range(rounds):  # before it starts: it remembers which buckets there are
        for name in (f"ours-{number}", f"rclone-{number}"):
            (server / name).mkdir(parents=True)
    address = f"127.0.0.1:{any_free()}"
    credentials = {"S3_ACCESS_KEY_ID": "bench", "S3_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    key = ",".join(credentials.values())
    command = [BIN / "rclone", "serve", "s3", "--auth-key", key, "--addr", address, server]
    serving = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        environment = {**os.environ, **credentials, "S3_ENDPOINT_URL": f"http://{address}", "S3_REGION": "us-east-1"}
        environment |= {"ASSET_STORAGE_PATH": str(store), "BLOB_WORKERS": str(PUSH_WORKERS)}
        ours, baseline = [], []
        for number in range(rounds):
            os.sync()
            remote = (
                f":s3,provider=Rclone,endpoint='http://{address}',access_key_id={credentials['S3_ACCESS_KEY_ID']},"
                f"secret_access_key={credentials['S3_SECRET_ACCESS_KEY']}:rclone-{number}/objects"
            )
            copy = [BIN / "rclone", "copy", "--transfers", str(PUSH_WORKERS), store / "objects", remote]
            baseline.append(timed(partial(run, copy, environment)))
            os.sync()
            push = [BIN / "depot-ops", "blobs", "push"]
            ours.append(timed(partial(run, push, environment | {"BLOB_COPY_URL": f"s3://ours-{number}"})))
    finally:
        serving.terminate()
        serving.wait()
    add_ratio(results, f"push to a bucket, {PUSH_WORKERS} workers", ours, "rclone copy", baseline, "≤ 1")


def run(command: list[Path | str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def fill(root: Path, tree: Path) -> list[StoredBlob]:
    store = BlobStore(root)
    store.prepare()
    staged = []
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        with store.writer() as writer:
            writer.write(path.read_bytes())
            staged.append(writer.finish())
    blobs = store.commit(staged)
    store.close()
    return blobs


def copy_and_sync(source: Path, target: Path, *command: str) -> None:
    subprocess.run([*command, source, target], check=True)
    os.sync()


def reconcile(store: Path, mirror: Path) -> None:
    with open_mirror(store, mirror) as opened:
        opened.reconcile()


def hash_all(blobs: Sequence[StoredBlob], *copies: Path) -> None:
    """What a scrub cannot do without."""

    def hashed(path: Path) -> bytes:
        return hashlib.sha256(isal_zlib.decompress(path.read_bytes(), GZIP_MEMBER)).digest()

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(hashed, [Layout(copy).object_path(blob.sha256) for blob in blobs for copy in copies]))


def bench_nothing_to_do(results: Results, work: Path, objects: int) -> None:
    """A reconcile that has nothing to copy, of objects that are only names."""
    layouts = [Layout(work / name) for name in ("paper", "paper-mirror")]
    for layout in layouts:
        for prefix in layout.prefixes():
            prefix.mkdir(parents=True)
        for number in range(objects):
            layout.object_path(hashlib.sha256(b"%d" % number).hexdigest()).touch()
    seconds = statistics.median(timed(lambda: reconcile(layouts[0].root, layouts[1].root)) for _ in range(3))
    results.add(f"reconcile of {objects:,} objects, nothing to do", f"{seconds:.2f} s", "< 5 s")
    store, mirror = (str(layout.root) for layout in layouts)
    environment = {**os.environ, "ASSET_STORAGE_PATH": store, "ASSET_STORAGE_REPLICA_PATH": mirror}
    mirroring = [BIN / "depot-ops", "blobs", "mirror"]
    results.add(f"mirror plans {objects:,} objects", watched(mirroring, environment), "< 300 MB")
    for layout in layouts:
        shutil.rmtree(layout.root)


def bench_planning(results: Results, stack: Stack, work: Path, records: int) -> None:
    """Marking, when nothing refers to any of them; and the dry run of tiering."""
    store, mirror = work / "planning", work / "planning-mirror"
    for root in (store, mirror):
        (root / "objects").mkdir(parents=True)
    environment = {
        **os.environ,
        "ASSET_STORAGE_PATH": str(store),
        "ASSET_STORAGE_REPLICA_PATH": str(mirror),
        "DATABASE_OWNER_URL": stack.database_url,
        "DEPOT_DUMP_URL": stack.database_url,
        "BACKUP_DIR": str(work / "planning-backups"),
    }
    subprocess.run([BIN / "depot-ops", "backup", "logical"], env=environment, check=True, stdout=subprocess.DEVNULL)
    with psycopg.connect(stack.database_url, autocommit=True) as database:
        database.execute(RECORDS, [records])
        database.execute("VACUUM ANALYZE blobs")
    collector = [BIN / "depot-ops", "blobs", "collect"]
    results.add(f"collection marks {records:,} records", watched(collector, environment), "< 300 MB")
    planner = [sys.executable, "-c", "from bench.blobs import plan_on_paper; plan_on_paper()"]
    results.add(f"tiering plan of {records:,} records", watched(planner, environment), "< 300 MB")


def plan_on_paper() -> None:
    """The dry run over all records, with a bucket that lists every one of them."""
    url, tally = os.environ["DEPOT_DUMP_URL"], Tally()
    policy = Policy.model_validate(
        {"version": 1, "rules": [{"name": "old", "when": {"older_than_days": 30}, "storage_class": "STANDARD_IA"}]}
    )
    hashes = "SELECT encode(sha256, 'hex') FROM blobs WHERE removed_at IS NULL ORDER BY sha256"
    with psycopg.connect(url) as database, database.cursor(name="paper") as cursor, open_catalogue(url) as catalogue:
        listing = (Listed(sha256, "", 1 << 20, "STANDARD", "") for (sha256,) in cursor.execute(hashes))
        for _ in tally.place(catalogue.judged(policy, datetime.now(UTC)), listing):
            pass
    if tally.not_in_bucket or tally.not_in_catalogue:
        raise RuntimeError("the plan did not see each record beside its object")


def watched(command: list[Path | str], environment: dict[str, str]) -> str:
    """How long it takes, and the most memory that it has meanwhile."""
    process, peak_bytes = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL), 0

    def watch() -> None:
        nonlocal peak_bytes
        while process.poll() is None:
            peak_bytes = max(peak_bytes, process.memory_info().rss)
            time.sleep(0.05)

    seconds = timed(watch)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} failed; its output above says why")
    return f"{seconds:.1f} s, {peak_bytes >> 20} MiB at most"
