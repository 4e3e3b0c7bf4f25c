"""A working catalogue from refs/ and objects/ alone, into an empty database: all of it, or nothing."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ValidationError

from depot_api.blobstore.errors import BlobDamaged, BlobMissing
from depot_api.blobstore.examine import examine
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.refs import (
    AssetRef,
    BranchRef,
    MergeRef,
    ObliterationRef,
    ProjectRef,
    ProjectRefs,
    UserRef,
    VersionRef,
    read_refs,
)
from depot_api.paths import path_key
from depot_api.patterns import as_regex

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
        moved_to text, source_branch_id uuid, source_version integer, branch_id uuid, changelist_id uuid,
        changelist_no bigint, changelist_refs bigint, description text, submitted_at timestamptz, author_id uuid,
        format integer) ON COMMIT DROP;
    CREATE TEMP TABLE ref_merges (LIKE branch_merges, changelist_no bigint) ON COMMIT DROP;
    CREATE TEMP TABLE ref_obliterations (LIKE obliterations) ON COMMIT DROP;
    CREATE TEMP TABLE ref_obliterated (obliteration_id uuid, asset_id uuid, number integer, is_completed boolean)
        ON COMMIT DROP;
    CREATE TEMP TABLE ref_blobs (sha256 bytea, size_bytes bigint, stored_bytes bigint, stored_crc32 bigint,
        verified_at timestamptz, is_removed boolean) ON COMMIT DROP;
"""
COPY_VERSIONS = """
    COPY ref_versions (project_id, asset_id, path, path_key, version, sha256, size_bytes, action, base_version,
        moved_from, moved_from_key, moved_to, source_branch_id, source_version, branch_id, changelist_id,
        changelist_no, changelist_refs, description, submitted_at, author_id, format) FROM STDIN
"""
COPY_MERGES = """
    COPY ref_merges (id, project_id, source_branch_id, source_at, target_branch_id, target_at, landed_no,
        changelist_id, changelist_no, description, merge_text, paths_count, size_bytes, created_by, created_at,
        completed_at, status) FROM STDIN
"""
COPY_OBLITERATIONS = """
    COPY ref_obliterations (id, project_id, reason, status, requested_by, requested_at, due_at, finished_at) FROM STDIN
"""
# Numbers are never used twice, so those of changelists that are left out count too, and of merges that changed nothing.
KEEP_NUMBERS = """
    CREATE TEMP TABLE last_numbers ON COMMIT DROP AS
        SELECT project_id, max(number) AS number
        FROM (SELECT project_id, changelist_no FROM ref_versions
              UNION ALL SELECT project_id, landed_no FROM ref_merges) AS used (project_id, number) GROUP BY project_id;
    CREATE TEMP TABLE last_versions ON COMMIT DROP AS
        SELECT asset_id, max(coalesce(version, 0)) AS number FROM ref_versions GROUP BY asset_id;
    ANALYZE ref_versions, ref_assets, ref_obliterated, last_versions;
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
# A merge that found nothing to do has moved its target's head too.
INSERT_BRANCH = """
    INSERT INTO branches (id, project_id, name, description, parent_id, parent_at, submit_role, require_review,
                          require_validation, approve_role, required_approvals, created_by, created_at, head_no)
    VALUES (%(id)s, %(project_id)s, %(name)s, %(description)s, %(parent_id)s, %(parent_at)s, %(submit_role)s,
            %(require_review)s, %(require_validation)s, coalesce(%(approve_role)s::project_role, 'reviewer'),
            coalesce(%(required_approvals)s::integer, 1), %(created_by)s, %(created_at)s,
            greatest((SELECT max(changelist_no) FROM ref_versions WHERE branch_id = %(id)s),
                     (SELECT max(landed_no) FROM ref_merges WHERE target_branch_id = %(id)s), 0))
"""
INSERT_PATH_PERMISSION = """
    INSERT INTO path_permissions (project_id, position, pattern, regex, user_id, role, access)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
INSERT_TYPEMAP_RULE = """
    INSERT INTO typemap_rules (project_id, position, pattern, exclusive, mergeable, asset_type, scope)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
INSERT_LABEL = """
    INSERT INTO labels (project_id, name, branch_id, at_no, created_by, created_at) VALUES (%s, %s, %s, %s, %s, %s)
"""
INSERT_HISTORY = """
    INSERT INTO blobs (sha256, size_bytes, stored_bytes, stored_crc32, verified_at)
        SELECT sha256, size_bytes, stored_bytes, stored_crc32, verified_at FROM ref_blobs;
    INSERT INTO project_blobs (project_id, sha256)
        SELECT DISTINCT v.project_id, v.sha256 FROM ref_versions v
        WHERE v.sha256 IS NOT NULL
          AND NOT EXISTS (SELECT FROM ref_obliterated o WHERE o.asset_id = v.asset_id AND o.number = v.version);

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
    -- A document of format 1 does not say from where a path was integrated.
    INSERT INTO changelist_items (project_id, changelist_id, path_key, path, action, base_version, sha256, moved_from,
                                  moved_from_key, source_branch_id, source_version)
        SELECT project_id, changelist_id, path_key, path,
               CASE WHEN action <> 'integrate' OR source_branch_id IS NOT NULL THEN action
                    WHEN base_version IS NULL THEN 'add' ELSE 'edit' END,
               base_version, sha256, moved_from, moved_from_key, source_branch_id, source_version
        FROM ref_versions WHERE moved_to IS NULL;
    UPDATE changelists c SET status = 'submitted', number = v.changelist_no, submitted_at = v.submitted_at,
               items_count = v.items
        FROM (SELECT changelist_id, changelist_no, submitted_at, count(*) FILTER (WHERE moved_to IS NULL) AS items
              FROM ref_versions GROUP BY changelist_id, changelist_no, submitted_at) v
        WHERE c.id = v.changelist_id;

    INSERT INTO asset_versions (project_id, asset_id, number, sha256, size_bytes, action, branch_id, changelist_id,
                                changelist_no, author_id, moved_from, source_branch_id, source_version, created_at)
        SELECT project_id, asset_id, version, sha256, size_bytes, action, branch_id, changelist_id, changelist_no,
               author_id, moved_from, source_branch_id, source_version, submitted_at
        FROM ref_versions WHERE version IS NOT NULL ORDER BY asset_id, version;
    INSERT INTO branch_heads (project_id, branch_id, path_key, from_no, path, asset_id, version, sha256, size_bytes)
        SELECT project_id, branch_id, path_key, changelist_no, path, asset_id, version, sha256, size_bytes
        FROM ref_versions ORDER BY branch_id, path_key, changelist_no DESC;
"""
# A merge is merged only through its gate: so the gate comes back too. One whose changelist was left out stays out.
INSERT_MERGES = """
    INSERT INTO changelists (id, project_id, branch_id, author_id, description, status, created_at)
        SELECT changelist_id, project_id, target_branch_id, created_by, description, 'abandoned', created_at
        FROM ref_merges WHERE changelist_no IS NULL;
    DELETE FROM ref_merges m WHERE NOT EXISTS (SELECT FROM changelists c WHERE c.id = m.changelist_id);
    INSERT INTO branch_merges (id, project_id, source_branch_id, source_at, target_branch_id, target_at, changelist_id,
                               description, merge_text, paths_count, size_bytes, created_by, created_at)
        SELECT id, project_id, source_branch_id, source_at, target_branch_id, target_at, changelist_id, description,
               merge_text, paths_count, size_bytes, created_by, created_at
        FROM ref_merges;
    INSERT INTO merge_jobs (project_id, merge_id, job_type, status, submit_gate_passed, created_at, finished_at)
        SELECT project_id, id, 'submit_gate', 'completed', true, completed_at, completed_at FROM ref_merges;
    UPDATE branch_merges b SET status = 'merged', landed_no = m.landed_no, completed_at = m.completed_at
        FROM ref_merges m WHERE m.id = b.id;
"""
INSERT_OBLITERATIONS = """
    INSERT INTO obliterations (id, project_id, reason, status, requested_by, requested_at, due_at, finished_at)
        SELECT id, project_id, reason, status, requested_by, requested_at, due_at, finished_at FROM ref_obliterations;
    INSERT INTO obliterated_versions (project_id, obliteration_id, asset_id, number, sha256)
        SELECT v.project_id, o.obliteration_id, v.asset_id, v.number, v.sha256
        FROM ref_obliterated o JOIN asset_versions v USING (asset_id, number);
    UPDATE blobs b SET removed_at = now() FROM ref_blobs r WHERE r.sha256 = b.sha256 AND r.is_removed;
"""
# Whether every version of a content is obliterated for good: then its bytes are meant to be gone.
WANTED_OBJECTS = """
    SELECT encode(v.sha256, 'hex') AS sha256, min(v.size_bytes) AS size_bytes, bool_and(EXISTS (
        SELECT FROM ref_obliterated o
        WHERE o.asset_id = v.asset_id AND o.number = v.version AND o.is_completed)) AS may_be_gone
    FROM ref_versions v WHERE v.sha256 IS NOT NULL GROUP BY v.sha256 ORDER BY 1
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
    # What documents that were written before format 2 do not say. Set it again by hand.
    not_in_refs: list[str] = []

    @property
    def is_whole(self) -> bool:
        return not (self.objects_missing or self.objects_damaged or self.changelists_incomplete or self.not_in_refs)


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
    result.not_in_refs = _not_in_refs(owner, projects, branches)
    owner.execute(INSERT_USERS)
    for project in projects:
        _insert_project(owner, project, [branch for branch in branches if branch.project_id == project.id])
    owner.execute(INSERT_HISTORY)
    owner.execute(INSERT_MERGES)
    owner.execute(INSERT_OBLITERATIONS)
    owner.execute("SELECT recount_project_usage(id) FROM projects")
    _count(owner, result)
    return result


def _not_in_refs(owner: Owner, projects: Iterable[ProjectRef], branches: Iterable[BranchRef]) -> list[str]:
    rows = owner.execute("SELECT DISTINCT project_id FROM ref_versions WHERE format = 1").fetchall()
    with_old_history = {project_id for (project_id,) in rows}
    lacking = [f"who may approve on branch {branch.name} ({branch.id})" for branch in branches if branch.format == 1]
    for project in projects:
        if project.format == 1:
            lacking.append(f"path permissions, typemap and labels of project {project.name}")
        if project.id in with_old_history:
            lacking.append(f"what was merged, integrated or obliterated in project {project.name}")
    return lacking


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
    _stage_merges(owner, directory.merges())
    _stage_obliterations(owner, directory.obliterations())


def _stage_merges(owner: Owner, merges: Sequence[MergeRef]) -> None:
    _stage_users(owner, (merge.created_by for merge in merges))
    with owner.cursor().copy(COPY_MERGES) as copy:
        for ref in merges:
            copy.write_row(
                (
                    ref.id,
                    ref.project_id,
                    ref.source_branch_id,
                    ref.source_at,
                    ref.target_branch_id,
                    ref.target_at,
                    ref.landed_no,
                    ref.changelist_id,
                    ref.changelist_no,
                    ref.description,
                    ref.merge_text,
                    ref.paths_count,
                    ref.size_bytes,
                    ref.created_by.id,
                    ref.created_at,
                    ref.completed_at,
                    "merged",
                )
            )


def _stage_obliterations(owner: Owner, obliterations: Sequence[ObliterationRef]) -> None:
    _stage_users(owner, (ref.requested_by for ref in obliterations))
    with owner.cursor().copy(COPY_OBLITERATIONS) as copy:
        for ref in obliterations:
            copy.write_row(
                (
                    ref.id,
                    ref.project_id,
                    ref.reason,
                    ref.status,
                    ref.requested_by.id,
                    ref.requested_at,
                    ref.due_at,
                    ref.finished_at,
                )
            )
    with owner.cursor().copy("COPY ref_obliterated FROM STDIN") as copy:
        for ref in obliterations:
            for gone in ref.versions:
                copy.write_row((ref.id, gone.asset_id, gone.version, ref.status == "completed"))


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
        ref.source_branch_id,
        ref.source_version,
        ref.branch_id,
        ref.changelist_id,
        ref.changelist_no,
        ref.changelist_refs,
        ref.description,
        ref.submitted_at,
        ref.author.id,
        ref.format,
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
        yield from (rule.user for rule in project.path_permissions or [] if rule.user)
        yield from (label.created_by for label in project.labels or [])


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
    _insert_rules(owner, project)


def _insert_rules(owner: Owner, project: ProjectRef) -> None:
    """In the positions that the service gives: permissions count from 1, the typemap from 0."""
    for position, rule in enumerate(project.path_permissions or [], 1):
        user_id = rule.user.id if rule.user else None
        of_rule = (rule.pattern, as_regex(rule.pattern), user_id, rule.role, rule.access)
        owner.execute(INSERT_PATH_PERMISSION, (project.id, position, *of_rule))
    for position, kind in enumerate(project.typemap or []):
        of_kind = (kind.pattern, kind.exclusive, kind.mergeable, kind.asset_type, kind.scope)
        owner.execute(INSERT_TYPEMAP_RULE, (project.id, position, *of_kind))
    for label in project.labels or []:
        of_label = (label.name, label.branch_id, label.at_no, label.created_by.id, label.created_at)
        owner.execute(INSERT_LABEL, (project.id, *of_label))


class Wanted(NamedTuple):
    """An object that history refers to. `may_be_gone`: only what is obliterated for good does."""

    sha256: str
    size_bytes: int
    may_be_gone: bool


def _examine_objects(owner: Owner, layout: Layout, result: Rebuilt) -> None:
    """Read every object that history refers to. Of one that is not intact, the row says what no file can match."""
    with owner.cursor(row_factory=class_row(Wanted)) as cursor:
        wanted = cursor.execute(WANTED_OBJECTS).fetchall()
    with ThreadPoolExecutor(os.cpu_count()) as pool, owner.cursor().copy("COPY ref_blobs FROM STDIN") as copy:
        for start in range(0, len(wanted), EXAMINED_AT_ONCE):
            some = wanted[start : start + EXAMINED_AT_ONCE]
            found = pool.map(lambda one: _examined(layout, one.sha256), some)
            for one, seen in zip(some, found, strict=True):
                copy.write_row(_blob_row(one, seen, result))


def _examined(layout: Layout, sha256: str) -> StoredBlob | BlobMissing | BlobDamaged:
    try:
        return examine(layout, sha256)
    except (BlobMissing, BlobDamaged) as error:
        return error


def _blob_row(wanted: Wanted, seen: StoredBlob | BlobMissing | BlobDamaged, result: Rebuilt) -> Sequence[object]:
    sha256 = bytes.fromhex(wanted.sha256)
    if isinstance(seen, StoredBlob):
        result.objects_verified += 1
        return (sha256, seen.size_bytes, seen.stored_bytes, seen.stored_crc32, "now", False)
    is_removed = wanted.may_be_gone and isinstance(seen, BlobMissing)
    if isinstance(seen, BlobDamaged):
        result.objects_damaged[wanted.sha256] = seen.seen
    elif not is_removed:
        result.objects_missing.append(wanted.sha256)
    # No gzip member has one byte: whatever lies there is not served, and sending the content again heals it.
    return (sha256, wanted.size_bytes, 1, 0, "-infinity", is_removed)


def _count(owner: Owner, result: Rebuilt) -> None:
    row = owner.execute(
        """SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM branches), (SELECT count(*) FROM users),
                  (SELECT count(*) FROM changelists WHERE status = 'submitted'), (SELECT count(*) FROM assets),
                  (SELECT count(*) FROM asset_versions)"""
    ).fetchone()
    assert row is not None, "counts are one row"
    names = ("projects", "branches", "users", "changelists", "assets", "versions")
    for name, count in zip(names, row, strict=True):
        setattr(result, name, count)
