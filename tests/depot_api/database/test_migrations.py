"""Upgrades of the schema."""

import hashlib
import threading
import time
from pathlib import Path

import psycopg

from depot_api.database import migrations
from depot_api.database.migrate import upgrade

LOCK = "SELECT pg_advisory_lock(hashtext('asset-depot migrations'))"
LOCK_TIMEOUT_SECONDS = 4.0  # of what a migration itself waits for


def test_a_second_upgrade_waits_for_the_first_however_long_it_takes(depot_database):
    ended: list[Exception | None] = []

    def second() -> None:
        try:
            upgrade(depot_database.owner_url)
            ended.append(None)
        except Exception as error:
            ended.append(error)

    with psycopg.connect(depot_database.owner_url) as first:
        first.execute(LOCK)
        thread = threading.Thread(target=second)
        thread.start()
        waiting = """SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                     WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
        while first.execute(waiting).fetchone() is None:
            assert thread.is_alive(), ended
        until = time.monotonic() + LOCK_TIMEOUT_SECONDS + 0.5
        while time.monotonic() < until:
            thread.join(0.1)
            assert thread.is_alive(), ended
    thread.join(30)
    assert ended == [None]


def test_what_was_published_is_never_edited():
    """A database that has run it would never get the change. A new one is added with `sha256sum *.sql`."""
    versions = Path(migrations.__file__).parent / "versions"
    published = (Path(__file__).parent / "published.sha256").read_text().splitlines()
    now = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in versions.glob("*.sql")}
    assert now == {name: sha256 for sha256, name in map(str.split, published)}
