"""Rules of merges for people: planning, conflicts and what is chosen for them, cancelling, and adding jobs."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import DictRow

from depot_api import events
from depot_api.branches import service as branches
from depot_api.changelists import service as changelists
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.locks import service as locks
from depot_api.merges import queries
from depot_api.merges.bases import Point
from depot_api.merges.decide import DISPUTED, ConflictKind, Version
from depot_api.merges.models import (
    BranchMerge,
    ConflictResolve,
    ConflictSide,
    ConflictsResolve,
    ConflictsResolved,
    JobStatus,
    JobType,
    MadeResolution,
    MergeConflict,
    MergeConflictDetail,
    MergeCreate,
    MergeJob,
    MergePlan,
    MergeStatus,
    PlannedConflict,
    PlannedPath,
    Resolution,
)
from depot_api.merges.plan import Choice, Clash, Plan, items, make_plan
from depot_api.objects import service as objects
from depot_api.paths import path_key
from depot_api.patterns import as_regex
from depot_api.permissions import service as permissions
from depot_api.problems import Conflict, Forbidden, MergeClosed, MissingContent, NotFound
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, decode_uuid_cursor, encode_cursor

# Named in a preview; the counts are of all.
MAX_NAMED = 1000
# Larger ones are not texts that a line-by-line merge helps with.
MAX_TEXT_BYTES = 4 << 20
OPEN = (MergeStatus.PENDING, MergeStatus.CONFLICTED)


async def readable_merge(tx: Transaction, merge_id: UUID) -> BranchMerge:
    row = await queries.merge(tx, merge_id)
    if row is None:
        raise NotFound(f"There is no merge {merge_id} that you can see.")
    return BranchMerge.model_validate(row)


async def open_merge(tx: Transaction, merge_id: UUID, needed: ProjectRole) -> BranchMerge:
    """Held against everybody else until the transaction ends. Raises when the asker cannot change it any more."""
    merge = await readable_merge(tx, merge_id)
    await projects.writable_project(tx, merge.project_id, needed)
    await queries.lock_merge(tx, merge_id)
    merge = await readable_merge(tx, merge_id)
    if merge.status not in OPEN:
        raise MergeClosed(f"The merge is {merge.status} and never changes again. Begin a new one.")
    return merge


async def _source(tx: Transaction, wanted: MergeCreate) -> Point:
    branch = await branches.branch_of_project(tx, wanted.project_id, wanted.source_branch_id)
    return Point(branch.id, await branches.resolve_point(tx, branch, wanted.source_at, None))


async def preview_merge(actor: Actor, wanted: MergeCreate) -> MergePlan:
    """The plan, and nothing written."""
    async with actor.transaction() as tx:
        await projects.writable_project(tx, wanted.project_id, ProjectRole.LEAD)
        await permissions.refuse_hidden_paths(tx, wanted.project_id)
        source = await _source(tx, wanted)
        target = await branches.branch_of_project(tx, wanted.project_id, wanted.target_branch_id)
        plan = await make_plan(tx, wanted.project_id, source, Point(target.id, target.head_no))
    rows = items(plan, source.branch_id, {})[:MAX_NAMED]
    return MergePlan(
        source_at=source.at,
        target_at=target.head_no,
        paths_count=len(plan.changes),
        size_bytes=_size_bytes(plan),
        conflicts_count=len(plan.conflicts),
        same_count=plan.same_count,
        paths=[
            PlannedPath(
                path=row.path,
                action=row.action,
                moved_from=row.moved_from,
                sha256=row.sha256.hex() if row.sha256 else None,
            )
            for row in rows
        ],
        conflicts=[
            PlannedConflict(
                path=clash.named.path,
                kind=clash.kind,
                source_path=clash.source.path if clash.source else None,
                target_path=clash.target.path if clash.target else None,
            )
            for clash in list(plan.conflicts.values())[:MAX_NAMED]
        ],
    )


def _size_bytes(plan: Plan) -> int:
    return sum(change.source.size_bytes for change in plan.changes.values() if change.source)


async def create_merge(actor: Actor, wanted: MergeCreate, idempotency_key: str | None) -> BranchMerge:
    async def create() -> BranchMerge:
        await projects.writable_project(tx, wanted.project_id, ProjectRole.LEAD)
        await permissions.refuse_hidden_paths(tx, wanted.project_id)
        source = await _source(tx, wanted)
        source_branch = await branches.readable_branch(tx, source.branch_id)
        target = await branches.branch_of_project(tx, wanted.project_id, wanted.target_branch_id)
        about = wanted.description or f"Merge {source_branch.name}@{source.at} into {target.name}"
        changelist_id = await changelists.open_for_merge(tx, actor, wanted.project_id, target.id, about)
        merge_id = await queries.insert_merge(
            tx, wanted.project_id, source, target.id, about, wanted.merge_text, changelist_id, actor.user_id
        )
        merge = await readable_merge(tx, merge_id)
        payload = {"source_branch_id": str(source.branch_id), "target_branch_id": str(target.id)}
        await tell(tx, actor, EventKind.MERGE_CREATED, merge, **payload)
        gated = wanted.submit or target.require_review or target.require_validation
        for job_type in JobType if gated else (JobType.AUTO_INTEGRATE, JobType.CONFLICT_STAGING):
            await _queue(tx, actor, merge, job_type)
        return merge

    async with actor.transaction() as tx:
        request = "create merge " + wanted.model_dump_json()
        return await once(tx, actor.user_id, idempotency_key, request, BranchMerge, create)


async def tell(tx: Transaction, actor: Actor, kind: EventKind, merge: BranchMerge, **more: object) -> None:
    payload = {"merge_id": str(merge.id), **more}
    await events.record(tx, merge.project_id, kind, actor.user_id, payload)


async def _queue(tx: Transaction, actor: Actor, merge: BranchMerge, job_type: JobType) -> MergeJob:
    row = await queries.queue_job(tx, merge.project_id, merge.id, job_type, anew=JobStatus.FAILED)
    job = MergeJob.model_validate(row)
    await tell(tx, actor, EventKind.MERGE_JOB_QUEUED, merge, job_id=str(job.id), job_type=job_type)
    return job


async def get_merge(actor: Actor, merge_id: UUID) -> BranchMerge:
    async with actor.transaction() as tx:
        return await readable_merge(tx, merge_id)


async def list_merges(
    actor: Actor, project_id: UUID, statuses: Sequence[MergeStatus], limit: int, cursor: str | None
) -> Page[BranchMerge]:
    """Newest first."""
    before = decode_uuid_cursor(cursor)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.merges(tx, project_id, statuses or list(MergeStatus), before, limit)
    found = [BranchMerge.model_validate(row) for row in rows]
    return Page(items=found, next_cursor=encode_cursor(str(found[-1].id)) if len(found) == limit else None)


async def cancel_merge(actor: Actor, merge_id: UUID) -> BranchMerge:
    """At any point before it lands; nothing stays staged."""
    async with actor.transaction() as tx:
        merge = await open_merge(tx, merge_id, ProjectRole.LEAD)
        await queries.delete_shelf(tx, merge_id)
        await queries.set_cancelled(tx, merge_id)
        await tell(tx, actor, EventKind.MERGE_CANCELLED, merge)
        return await readable_merge(tx, merge_id)


def acting_for(actor: Actor, user_id: UUID) -> Actor:
    """A merge does what its creator may do, whoever executes it."""
    return Actor(user_id, actor.request_id, actor.depot)


# The staged result --------------------------------------------------------------------------------------------------


async def stage(tx: Transaction, merge: BranchMerge, target_at: int) -> MergeStatus:
    """Plan against the target as of now, and stage what needs no choice or has one. The same twice is the same."""
    await permissions.refuse_hidden_paths(tx, merge.project_id)
    source = Point(merge.source_branch_id, merge.source_at)
    plan = await make_plan(tx, merge.project_id, source, Point(merge.target_branch_id, target_at))
    mergeable = await locks.mergeable_paths(
        tx, merge.project_id, [clash.named.path for clash in plan.conflicts.values() if _is_text(clash)]
    )
    rows = [_conflict_row(key, clash, mergeable) for key, clash in plan.conflicts.items()]
    await queries.replace_conflicts(tx, merge.project_id, merge.id, rows)
    chosen = {
        row["path_key"]: Choice(row["resolution"] != Resolution.TARGET, row["resolved_sha256"])
        for row in await queries.choices(tx, merge.id)
    }
    landing = items(plan, merge.source_branch_id, chosen)
    await changelists.stage_merge(tx, merge.changelist_id, landing)
    await queries.set_planned(tx, merge.id, target_at, len(landing), _size_bytes(plan))
    return MergeStatus(await queries.settle_status(tx, merge.id))


def _is_text(clash: Clash) -> bool:
    """Perhaps: both sides have content of a bearable size, at one path. The typemap has the last word."""
    sides = (clash.base, clash.source, clash.target)
    return clash.kind in (ConflictKind.BOTH_EDITED, ConflictKind.BOTH_ADDED) and all(
        side is None or side.size_bytes <= MAX_TEXT_BYTES for side in sides
    )


def _conflict_row(key: str, clash: Clash, mergeable: set[str]) -> tuple[object, ...]:
    path = clash.named.path
    return (
        key,
        path,
        clash.kind,
        *(side.path if side else None for side in (clash.base, clash.source, clash.target)),
        _is_text(clash) and path in mergeable,
        *_number_and_hash(clash.base),
        *_number_and_hash(clash.source),
        *_number_and_hash(clash.target),
        *(side.key if side else None for side in (clash.base, clash.source, clash.target)),
    )


def _number_and_hash(version: Version | None) -> tuple[int | None, bytes | None]:
    return (version.number, version.sha256) if version and version.sha256 != DISPUTED else (None, None)


# Conflicts ----------------------------------------------------------------------------------------------------------


def conflict_of(row: DictRow) -> MergeConflict:
    return MergeConflict.model_validate(
        {
            **row,
            "base": _side(row, "base", row["base_path"]),
            "source": _side(row, "source", row["source_path"]),
            "target": _side(row, "target", row["target_path"]),
            "resolved_sha256": row["resolved_sha256"].hex() if row["resolved_sha256"] else None,
        }
    )


def _side(row: DictRow, name: str, path: str | None) -> ConflictSide | None:
    if row[f"{name}_version"] is None or path is None:
        return None
    return ConflictSide(path=path, version=row[f"{name}_version"], sha256=row[f"{name}_sha256"].hex())


async def list_conflicts(
    actor: Actor, merge_id: UUID, unresolved: bool, limit: int, cursor: str | None
) -> Page[MergeConflict]:
    """By path."""
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await readable_merge(tx, merge_id)
        rows = await queries.conflicts(tx, merge_id, str(after[0]) if after else "", limit, unresolved=unresolved)
    found = [conflict_of(row) for row in rows]
    return Page(items=found, next_cursor=encode_cursor(rows[-1]["path_key"]) if len(rows) == limit else None)


async def _readable_conflict(tx: Transaction, conflict_id: UUID) -> DictRow:
    row = await queries.conflict(tx, conflict_id)
    if row is None:
        raise NotFound(f"There is no conflict {conflict_id} that you can see. A renewed plan may have settled it.")
    return row


async def get_conflict(actor: Actor, conflict_id: UUID) -> MergeConflictDetail:
    async with actor.transaction() as tx:
        return await _detail(tx, await _readable_conflict(tx, conflict_id))


async def _detail(tx: Transaction, row: DictRow) -> MergeConflictDetail:
    made = await queries.resolutions(tx, row["merge_id"], row["path_key"])
    history = [
        MadeResolution.model_validate({**one, "sha256": one["sha256"].hex() if one["sha256"] else None}) for one in made
    ]
    return MergeConflictDetail(**conflict_of(row).model_dump(), history=history)


async def resolve_conflict(actor: Actor, conflict_id: UUID, wanted: ConflictResolve) -> MergeConflictDetail:
    async with actor.transaction() as tx:
        row = await _readable_conflict(tx, conflict_id)
        await projects.writable_project(tx, row["project_id"], ProjectRole.CONTRIBUTOR)
    if wanted.sha256 and await objects.missing_objects(actor, row["project_id"], [wanted.sha256]):
        raise MissingContent(
            "The depot does not have that content from you. Send it with PUT /projects/{id}/objects/{sha256} first.",
            missing=[wanted.sha256],
        )
    async with actor.transaction() as tx:
        return await record_resolution(tx, actor, conflict_id, wanted.resolution, wanted.sha256, wanted.reason)


async def record_resolution(
    tx: Transaction, actor: Actor, conflict_id: UUID, resolution: Resolution, sha256: str | None, reason: str
) -> MergeConflictDetail:
    row = await _readable_conflict(tx, conflict_id)
    merge = await open_merge(tx, row["merge_id"], ProjectRole.CONTRIBUTOR)
    content = bytes.fromhex(sha256) if sha256 else None
    if content:
        await queries.refer_to(tx, merge.project_id, content)
    resolved = await queries.resolve(tx, merge.id, [row["path_key"]], resolution, content, actor.user_id, reason)
    if not resolved:
        raise Forbidden(f"The permissions of {row['path']!r} do not let you change it, so its conflict is not yours.")
    await _tell_resolved(tx, actor, merge, [row["path"]], resolution)
    return await _detail(tx, await _readable_conflict(tx, conflict_id))


async def resolve_conflicts(actor: Actor, merge_id: UUID, wanted: ConflictsResolve) -> ConflictsResolved:
    """All that the pattern names and the asker may write; those resolved already stay, unless told otherwise."""
    async with actor.transaction() as tx:
        merge = await open_merge(tx, merge_id, ProjectRole.CONTRIBUTOR)
        keys = await queries.keys_matching(tx, merge_id, as_regex(wanted.pattern), not wanted.even_resolved)
        resolved = await queries.resolve(tx, merge_id, keys, wanted.resolution, None, actor.user_id, wanted.reason)
        if resolved:
            await _tell_resolved(tx, actor, merge, [wanted.pattern], wanted.resolution)
        now = await readable_merge(tx, merge_id)
    return ConflictsResolved(resolved_count=len(resolved), unresolved_count=now.unresolved_count)


async def _tell_resolved(
    tx: Transaction, actor: Actor, merge: BranchMerge, paths: list[str], resolution: Resolution
) -> None:
    await tell(tx, actor, EventKind.MERGE_CONFLICTS_RESOLVED, merge, paths=paths, resolution=resolution)
    if not (await readable_merge(tx, merge.id)).unresolved_count:
        # The database queued it in the same breath (settle_conflicts); this tells who waits for it.
        await tell(tx, actor, EventKind.MERGE_JOB_QUEUED, merge, job_type=JobType.AUTO_INTEGRATE)


# Jobs, as people add them and look at them --------------------------------------------------------------------------


async def list_jobs(actor: Actor, merge_id: UUID) -> list[MergeJob]:
    async with actor.transaction() as tx:
        await readable_merge(tx, merge_id)
        return [MergeJob.model_validate(row) for row in await queries.jobs(tx, merge_id)]


async def add_job(actor: Actor, merge_id: UUID, job_type: JobType) -> MergeJob:
    """A merge has one of each type: asked for again it is the same, and begins anew where it failed."""
    async with actor.transaction() as tx:
        merge = await open_merge(tx, merge_id, ProjectRole.LEAD)
        return await _queue(tx, actor, merge, job_type)


async def readable_job(tx: Transaction, job_id: UUID) -> MergeJob:
    row = await queries.job(tx, job_id)
    if row is None:
        raise NotFound(f"There is no merge job {job_id} that you can see.")
    return MergeJob.model_validate(row)


async def get_job(actor: Actor, job_id: UUID) -> MergeJob:
    async with actor.transaction() as tx:
        return await readable_job(tx, job_id)


async def queue_again(actor: Actor, job_id: UUID) -> MergeJob:
    """A failed job, from its first attempt."""
    async with actor.transaction() as tx:
        job = await readable_job(tx, job_id)
        merge = await open_merge(tx, job.merge_id, ProjectRole.LEAD)
        job = await readable_job(tx, job_id)
        if job.status is not JobStatus.FAILED:
            raise Conflict(f"The job is {job.status}. Only a failed one is queued again.")
        await queries.queue_again(tx, job_id)
        await tell(tx, actor, EventKind.MERGE_JOB_QUEUED, merge, job_id=str(job_id), job_type=job.job_type)
        return await readable_job(tx, job_id)


def authored(rows: Sequence[DictRow]) -> list[tuple[str, int]]:
    """The versions in conflict, as (path_key, number)."""
    return [
        (path_key(row[f"{side}_path"]), row[f"{side}_version"])
        for row in rows
        for side in ("source", "target")
        if row[f"{side}_path"] is not None
    ]
