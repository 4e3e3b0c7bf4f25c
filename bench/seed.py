"""`python -m bench.seed URL`: a project as a studio has after years, written as submit would have written it.

A million paths, twenty thousand changelists and five branches take minutes this way and hours over REST. The contents
are names without bytes: nothing here downloads them.
"""

import argparse
import sys
import time
import uuid
from dataclasses import dataclass

import psycopg

PATHS_PER_CHANGELIST = 50
BRANCHES = ("release", "dev", "art", "audio")
# Triggers check what these statements make right by construction; the audit log of a bench is of no use.
TABLES = ("changelists", "changelist_items", "asset_versions", "branch_heads", "project_blobs", "assets", "branches")

SEED = """
WITH made AS MATERIALIZED (
    SELECT n, 'Content/' || (ARRAY['Characters','Levels','Audio','FX','UI'])[1 + n %% 5] || '/d' || (n / 400) %% 500
              || '/' || (ARRAY['hero','tree','rock','door','lamp','step','wind'])[1 + n %% 7] || '_' || n
              || (ARRAY['.uasset','.png','.fbx','.wav'])[1 + n %% 4] AS path
    FROM generate_series(0, %(paths)s - 1) n),
numbered AS MATERIALIZED (
    SELECT n, path, lower(path) AS key, sha256(path::bytea) AS sha256, 1 + n / %(per)s AS no, uuid_v7() AS asset_id
    FROM made),
blob AS (
    INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32) SELECT sha256, 160000, 100000, 0 FROM numbered),
referred AS (INSERT INTO project_blobs (project_id, sha256) SELECT %(project)s, sha256 FROM numbered),
submitted AS (
    INSERT INTO changelists (project_id, branch_id, author_id, status, number, description, items_count, submitted_at)
    SELECT %(project)s, %(branch)s, %(author)s, 'submitted', no, 'seeded ' || no, count(*), now()
    FROM numbered GROUP BY no RETURNING id, number),
items AS (
    INSERT INTO changelist_items (project_id, changelist_id, path_key, path, action, sha256)
    SELECT %(project)s, s.id, n.key, n.path, 'add', n.sha256 FROM numbered n JOIN submitted s ON s.number = n.no),
asset AS (
    INSERT INTO assets (id, project_id, path_key, path, asset_type, tags, metadata, last_version, created_by)
    SELECT asset_id, %(project)s, key, path, split_part(path, '.', 2),
           CASE WHEN n %% 1000 = 0 THEN ARRAY['hero','rare'] WHEN n %% 10 = 0 THEN ARRAY['hero'] ELSE '{}' END,
           jsonb_build_object('lod', n %% 4, 'serial', n), 1, %(author)s FROM numbered),
version AS (
    INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id, changelist_id,
                                changelist_no, author_id)
    SELECT %(project)s, n.asset_id, 1, n.sha256, 160000, 'add', %(branch)s, s.id, n.no, %(author)s
    FROM numbered n JOIN submitted s ON s.number = n.no)
INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256, size_bytes)
SELECT %(project)s, %(branch)s, key, no, path, asset_id, 1, sha256, 160000 FROM numbered
"""


@dataclass(frozen=True)
class Seeded:
    project: str
    main: str
    branches: dict[str, str]
    changelists: int


def seed(owner_url: str, project: str, paths: int) -> Seeded:
    """Fill an empty project. Committed at the end, or not at all."""
    changelists = -(-paths // PATHS_PER_CHANGELIST)
    with psycopg.connect(owner_url) as owner:
        row = owner.execute("SELECT default_branch_id, created_by FROM projects WHERE id = %s", (project,)).fetchone()
        if row is None:
            raise SystemExit(f"There is no project {project}.")
        for table in TABLES:
            owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        of = {"project": project, "branch": row[0], "author": row[1], "paths": paths, "per": PATHS_PER_CHANGELIST}
        owner.execute(SEED, of)
        owner.execute("UPDATE changelist_counters SET last_no = %s WHERE project_id = %s", (changelists, project))
        owner.execute("UPDATE branches SET head_no = %s WHERE id = %s", (changelists, row[0]))
        for table in TABLES:
            owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        branches = {name: str(uuid.uuid4()) for name in BRANCHES}
        for name, branch in branches.items():
            owner.execute(
                """INSERT INTO branches (id, project_id, name, parent_id, parent_at, created_by)
                   VALUES (%s, %s, %s, %s, %s, %s)""",
                (branch, project, name, row[0], changelists, row[1]),
            )
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("VACUUM ANALYZE")
    return Seeded(project, str(row[0]), branches, changelists)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.seed", description=__doc__)
    parser.add_argument("database_url", help="of the owner role: database_url in stack.json")
    parser.add_argument("project", help="id of an empty project")
    parser.add_argument("--paths", type=int, default=1_000_000)
    options = parser.parse_args()
    started = time.monotonic()
    seeded = seed(options.database_url, options.project, options.paths)
    sys.stdout.write(f"{options.paths} paths in {seeded.changelists} changelists, {time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()
