"""A working catalogue from refs/ and objects/ alone, into an empty database: all of it, or nothing."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ValidationError

from depot_api.blobstore.errors import BlobDamaged, BlobMissing
from depot_api.blobstore.examine import examine
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.refs import AssetRef, BranchRef, ProjectRef, ProjectRefs, UserRef, VersionRef, read_refs
from depot_api.paths import path_key

Owner = psycopg.Connection[tuple[object, ...]]

REQUEST_ID = "catalogue-rebuild"  # under which the audit log shows all of it
EXAMINED_AT_ONCE = 1_000

MAKE_STAGING = """
    CREATE TEMP TABLE ref_users (seq bigint GENERATED ALWAYS AS IDENTITY, id uuid, username text, display_name text,
        studio_role studio_role) ON COMMIT DROP;
    CREATE TEMP TABLE ref_assets (id uuid, asset_type text, tags text[], metadata jsonb, created_by uuid,
        created_at timestamptz, project_id uuid, path text, path_key text) ON COMMIT DROP;
    CREATE TEMP TABLE ref_versions (
        project_id uuid, asset_id uuid, path text, path_key text COLLATE "C", version integer, sha256 bytea,
        size_bytes bigint, action item_action, base_version integer, moved_from text, moved_from_key text,
        moved_to text, branch_id uuid, changelist_id uuid, changelist_no bigint, changelist_refs bigint,
        description text, submitted_at timestamptz, author_id uuid) ON COMMIT DROP;
    CREATE TEMP TABLE ref_blobs (sha256 bytea, size_bytes bigint, stored_bytes bigint, stored_crc32 bigint,
        verified_at timestamptz) ON COMMIT DROP;
"""
COPY_VERSIONS = """
    COPY ref_versions (project_id, asset_id, path, path_key, version, sha256, size_bytes, action, base_version,
        moved_from, moved_from_key, moved_to, branch_id, changelist_id, changelist_no, changelist_refs, description,
        submitted_at, author_id) FROM STDIN
"""
# Numbers are never used twice, so those of changelists that are left out count too.
KEEP_NUMBERS = """
    CREATE TEMP TABLE last_numbers ON COMMIT DROP AS
        SELECT project_id, max(changelist_no) AS number FROM ref_versions GROUP BY project_id;
    CREATE TEMP TABLE last_versions ON COMMIT DROP AS
        SELECT asset_id, max(coalesce(version, 0)) AS number FROM ref_versions GROUP BY asset_id;
    ANALYZE ref_versions, ref_assets, last_versions;
"""
# All or nothing holds for a changelist here too: the crash may have come while its documents were written.
DROP_INCOMPLETE = """
    WITH incomplete AS (
        SELECT changelist_id, project_id, changelist_no FROM ref_versions
        GROUP BY changelist_id, project_id, changelist_no, changelist_refs HAVING count(*) <> changelist_refs),
    dropped AS (DELETE FROM ref_versions v USING incomplete i WHERE v.changelist_id = i.changelist_id)
    SELECT project_id, changelist_id, changelist_no FROM incomplete ORDER BY project_id, changelist_no
"""
# Nobody can sign in with them: they have no password and are not active until an admin says so.
INSERT_USERS = """
    INSERT INTO users (id, username, display_name, studio_role, is_active)
    SELECT DISTINCT ON (id) id, username, display_name, studio_role, false FROM ref_users ORDER BY id, seq
"""
INSERT_PROJECT = """
    INSERT INTO projects (id, name, description, status, quota_bytes, created_by, created_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
INSERT_COUNTER = """
    INSERT INTO changelist_counters (project_id, last_no)
    VALUES (%(project)s, coalesce((SELECT number FROM last_numbers WHERE project_id = %(project)s), 0))
"""
INSERT_BRANCH = """
    INSERT INTO branches (id, project_id, name, description, parent_id, parent_at, submit_role, require_review,
                          require_validation, created_by, created_at, head_no)
    VALUES (%(id)s, %(project_id)s, %(name)s, %(description)s, %(parent_id)s, %(parent_at)s, %(submit_role)s,
            %(require_review)s, %(require_validation)s, %(created_by)s, %(created_at)s,
            coalesce((SELECT max(changelist_no) FROM ref_versions WHERE branch_id = %(id)s), 0))
"""
INSERT_HISTORY = """
    INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32, verified_at) SELECT * FROM ref_blobs;
    INSERT INTO project_blobs (project_id, sha256)
        SELECT DISTINCT project_id, sha256 FROM ref_versions WHERE sha256 IS NOT NULL;

    INSERT INTO assets (id, project_id, path_key, path, asset_type, tags, metadata, last_version, created_by,
                        created_at)
        SELECT a.id, a.project_id, a.path_key, a.path, a.asset_type, a.tags, a.metadata, coalesce(l.number, 0),
               a.created_by, a.created_at
        FROM ref_assets a LEFT JOIN last_versions l ON l.asset_id = a.id;
    INSERT INTO assets (id, project_id, path_key, path, last_version, created_by, created_at)
        SELECT DISTINCT ON (v.asset_id) v.asset_id, v.project_id, v.path_key, v.path, l.number, v.author_id,
               v.submitted_at
        FROM ref_versions v JOIN last_versions l ON l.asset_id = v.asset_id
        WHERE NOT EXISTS (SELECT FROM ref_assets a WHERE a.id = v.asset_id)
        ORDER BY v.asset_id, v.changelist_no;

    INSERT INTO changelists (id, project_id, branch_id, author_id, description, created_at)
        SELECT DISTINCT ON (changelist_id) changelist_id, project_id, branch_id, author_id, description, submitted_at
        FROM ref_versions ORDER BY changelist_id;
    INSERT INTO changelist_items (project_id, changelist_id, path_key, path, action, base_version, sha256, moved_from,
                                  moved_from_key)
        SELECT project_id, changelist_id, path_key, path, action, base_version, sha256, moved_from, moved_from_key
        FROM ref_versions WHERE moved_to IS NULL;
    UPDATE changelists c SET status = 'submitted', number = v.changelist_no, submitted_at = v.submitted_at,
               items_count = v.items
        FROM (SELECT changelist_id, changelist_no, submitted_at, count(*) FILTER (WHERE moved_to IS NULL) AS items
              FROM ref_versions GROUP BY changelist_id, changelist_no, submitted_at) v
        WHERE c.id = v.changelist_id;

    INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id, changelist_id,
                                changelist_no, author_id, moved_from, created_at)
        SELECT project_id, asset_id, version, sha256, size_bytes, action, branch_id, changelist_id, changelist_no,
               author_id, moved_from, submitted_at
        FROM ref_versions WHERE version IS NOT NULL ORDER BY asset_id, version;
    INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256, size_bytes)
        SELECT project_id, branch_id, path_key, changelist_no, path, asset_id, version, sha256, size_bytes
        FROM ref_versions ORDER BY branch_id, path_key, changelist_no DESC;
"""


class RebuildError(Exception):
    """Nothing was changed; the message says why and what to do."""


class Incomplete(BaseModel):
    """A changelist of which documents are missing; it was left out as a whole."""

    project_id: UUID
    changelist_id: UUID
    changelist_no: int


class Rebuilt(BaseModel):
    """What came back, and what did not."""

    projects: int = 0
    branches: int = 0
    users: int = 0
    changelists: int = 0
    assets: int = 0
    versions: int = 0
    objects_verified: int = 0
    # Their history is there; sending the same content again heals them.
    objects_missing: list[str] = []
    objects_damaged: dict[str, str] = {}
    changelists_incomplete: list[Incomplete] = []

    @property
    def is_whole(self) -> bool:
        return not (self.objects_missing or self.objects_damaged or self.changelists_incomplete)


def rebuild(owner_url: str, store: Path) -> Rebuilt:
    """Read the store at `store` into the migrated, empty database. Raises RebuildError."""
    layout = Layout(store)
    if not layout.refs.is_dir():
        raise RebuildError(f"{layout.refs} is not there. Name the root of a blob store, the directory above refs/.")
    with psycopg.connect(owner_url) as owner:
        _refuse_filled(owner)
        owner.execute("SELECT set_config('app.request_id', %s, true)", (REQUEST_ID,))
        owner.execute(MAKE_STAGING)
        try:
            return _rebuild(owner, layout)
        except (ValidationError, FileNotFoundError) as error:
            raise RebuildError(f"A document below {layout.refs} cannot be used: {error}. Restore it first.") from error
        except psycopg.IntegrityError as error:
            raise RebuildError(f"The documents below {layout.refs} contradict each other: {error}") from error


def _refuse_filled(owner: Owner) -> None:
    for table in ("projects", "users", "blobs"):
        if owner.execute(psycopg.sql.SQL("SELECT FROM {} LIMIT 1").format(psycopg.sql.Identifier(table))).fetchone():
            raise RebuildError(
                f"The database has {table} already; a catalogue is only rebuilt into an empty one. "
                "Make a new database, run depot-ops migrate, then this, and create-admin last."
            )


def _rebuild(owner: Owner, layout: Layout) -> Rebuilt:
    result = Rebuilt()
    directories = read_refs(layout.refs)
    projects = [directory.project() for directory in directories]
    _stage_users(owner, _users_of(projects))
    for directory in directories:
        _stage(owner, directory)
    owner.execute(KEEP_NUMBERS)
    result.changelists_incomplete = [
        Incomplete(project_id=project, changelist_id=changelist, changelist_no=number)
        for project, changelist, number in owner.execute(DROP_INCOMPLETE)
    ]
    _examine_objects(owner, layout, result)
    branches = [branch for directory in directories for branch in directory.branches()]
    _stage_users(owner, (branch.created_by for branch in branches))
    owner.execute(INSERT_USERS)
    for project in projects:
        _insert_project(owner, project, [branch for branch in branches if branch.project_id == project.id])
    owner.execute(INSERT_HISTORY)
    owner.execute("SELECT recount_project_usage(id) FROM projects")
    _count(owner, result)
    return result


def _stage(owner: Owner, directory: ProjectRefs) -> None:
    users: dict[UUID, UserRef] = {}
    with owner.cursor().copy(COPY_VERSIONS) as copy:
        for ref in directory.versions():
            users[ref.author.id] = ref.author
            copy.write_row(_version_row(ref))
    with owner.cursor().copy("COPY ref_assets FROM STDIN") as copy:
        for asset in directory.assets():
            users[asset.created_by.id] = asset.created_by
            copy.write_row(_asset_row(asset))
    _stage_users(owner, users.values())


def _version_row(ref: VersionRef) -> Sequence[object]:
    return (
        ref.project_id,
        ref.asset_id,
        ref.path,
        path_key(ref.path),
        ref.version,
        bytes.fromhex(ref.sha256) if ref.sha256 else None,
        ref.size_bytes,
        ref.action,
        ref.base_version,
        ref.moved_from,
        path_key(ref.moved_from) if ref.moved_from else None,
        ref.moved_to,
        ref.branch_id,
        ref.changelist_id,
        ref.changelist_no,
        ref.changelist_refs,
        ref.description,
        ref.submitted_at,
        ref.author.id,
    )


def _asset_row(ref: AssetRef) -> Sequence[object]:
    return (
        ref.id,
        ref.asset_type,
        ref.tags,
        Jsonb(ref.metadata),
        ref.created_by.id,
        ref.created_at,
        ref.project_id,
        ref.path,
        path_key(ref.path),
    )


def _users_of(projects: Iterable[ProjectRef]) -> Iterator[UserRef]:
    for project in projects:
        yield project.created_by
        yield from (member.user for member in project.members)


def _stage_users(owner: Owner, users: Iterable[UserRef]) -> None:
    with owner.cursor().copy("COPY ref_users (id, username, display_name, studio_role) FROM STDIN") as copy:
        for user in users:
            copy.write_row((user.id, user.username, user.display_name, user.studio_role))


def _insert_project(owner: Owner, project: ProjectRef, branches: list[BranchRef]) -> None:
    owner.execute(
        INSERT_PROJECT,
        (
            project.id,
            project.name,
            project.description,
            project.status,
            project.quota_bytes,
            project.created_by.id,
            project.created_at,
        ),
    )
    owner.execute(INSERT_COUNTER, {"project": project.id})
    for member in project.members:
        owner.execute(
            "INSERT INTO project_members (project_id, user_id, role, created_at) VALUES (%s, %s, %s, %s)",
            (project.id, member.user.id, member.role, member.created_at),
        )
    # A parent is older than its branches, and the schema derives a branch's lineage from its parent's.
    for branch in sorted(branches, key=lambda branch: (branch.created_at, branch.parent_id is not None)):
        owner.execute(INSERT_BRANCH, {**branch.model_dump(), "created_by": branch.created_by.id})
    owner.execute("UPDATE projects SET default_branch_id = %s WHERE id = %s", (project.default_branch_id, project.id))


def _examine_objects(owner: Owner, layout: Layout, result: Rebuilt) -> None:
    """Read every object that history refers to. Of one that is not intact, the row says what no file can match."""
    wanted = owner.execute(
        "SELECT DISTINCT encode(sha256, 'hex'), size_bytes FROM ref_versions WHERE sha256 IS NOT NULL ORDER BY 1"
    ).fetchall()
    with ThreadPoolExecutor(os.cpu_count()) as pool, owner.cursor().copy("COPY ref_blobs FROM STDIN") as copy:
        for start in range(0, len(wanted), EXAMINED_AT_ONCE):
            some = [(str(sha256), int(str(size))) for sha256, size in wanted[start : start + EXAMINED_AT_ONCE]]
            for found in pool.map(lambda asked: _examined(layout, *asked), some):
                copy.write_row(_blob_row(found, result))


def _examined(layout: Layout, sha256: str, size_bytes: int) -> StoredBlob | tuple[BlobMissing | BlobDamaged, int]:
    try:
        return examine(layout, sha256)
    except (BlobMissing, BlobDamaged) as error:
        return error, size_bytes


def _blob_row(found: StoredBlob | tuple[BlobMissing | BlobDamaged, int], result: Rebuilt) -> Sequence[object]:
    if isinstance(found, StoredBlob):
        result.objects_verified += 1
        return (bytes.fromhex(found.sha256), found.size_bytes, found.stored_bytes, found.stored_crc32, "now")
    error, size_bytes = found
    if isinstance(error, BlobMissing):
        result.objects_missing.append(error.sha256)
    else:
        result.objects_damaged[error.sha256] = error.seen
    # No gzip member has one byte: whatever lies there is not served, and sending the content again heals it.
    return (bytes.fromhex(error.sha256), size_bytes, 1, 0, "-infinity")


def _count(owner: Owner, result: Rebuilt) -> None:
    row = owner.execute(
        """SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM branches), (SELECT count(*) FROM users),
                  (SELECT count(*) FROM changelists), (SELECT count(*) FROM assets),
                  (SELECT count(*) FROM asset_versions)"""
    ).fetchone()
    assert row is not None, "counts are one row"
    names = ("projects", "branches", "users", "changelists", "assets", "versions")
    for name, count in zip(names, row, strict=True):
        setattr(result, name, count)
