"""What executors of merge jobs do: claim one with a lease, take its steps, report. The work itself is done here, in
transactions of which each is a durable step, so that an executor may die anywhere."""

from collections.abc import AsyncIterator
from uuid import UUID

from psycopg import errors

from depot_api.branches import service as branches
from depot_api.changelists import service as changelists
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.identity.actor import Actor
from depot_api.merges import queries, service
from depot_api.merges.models import (
    BranchMerge,
    ClaimableJob,
    ClaimedJob,
    JobClaim,
    JobStatus,
    JobStep,
    JobStepRequest,
    JobType,
    JobUpdate,
    MergeConflictDetail,
    MergeJob,
    MergeStatus,
    Resolution,
)
from depot_api.objects import service as objects
from depot_api.problems import Invalid, LeaseLost, NotFound, Problem, ProjectArchived, Unavailable
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.shelves import service as shelves

MAX_ATTEMPTS = 5
FIRST_RETRY_SECONDS = 2.0  # doubled with each attempt


async def list_claimable(actor: Actor, limit: int) -> list[ClaimableJob]:
    """What an executor could claim now, in all the projects that the asker sees; the oldest first."""
    async with actor.transaction() as tx:
        return [ClaimableJob.model_validate(row) for row in await queries.claimable_jobs(tx, limit)]


async def claim(actor: Actor, wanted: JobClaim) -> ClaimedJob:
    async with actor.transaction() as tx:
        for dead in await queries.give_up_dead(tx, MAX_ATTEMPTS):
            merge = await service.readable_merge(tx, dead["merge_id"])
            payload = {"job_id": str(dead["id"]), "error": dead["error"]}
            await service.tell(tx, actor, EventKind.MERGE_JOB_FAILED, merge, **payload)
        row = await queries.claim(tx, wanted.executor, wanted.lease_seconds, wanted.merge_id, wanted.job_id)
    return ClaimedJob(job=MergeJob.model_validate(row) if row else None)


async def update_job(actor: Actor, job_id: UUID, wanted: JobUpdate) -> MergeJob:
    if wanted.fencing_number is None:
        return await service.queue_again(actor, job_id)
    if wanted.status is JobStatus.FAILED:
        return await _failed(actor, job_id, wanted.fencing_number, wanted.error, again=True)
    async with actor.transaction() as tx:
        return await _held(tx, job_id, wanted.fencing_number, wanted.lease_seconds)


async def _held(tx: Transaction, job_id: UUID, fencing_number: int, lease_seconds: int | None = None) -> MergeJob:
    """Raises LeaseLost for whoever is not its executor any more."""
    job = await service.readable_job(tx, job_id)
    await projects.writable_project(tx, job.project_id, ProjectRole.LEAD)
    row = await queries.hold(tx, job_id, fencing_number, lease_seconds)
    if row is None:
        now = await service.readable_job(tx, job_id)
        raise LeaseLost(
            f"The job is {now.status} with fencing number {now.fencing_number}; yours is {fencing_number} or its lease "
            "has ended. What you did since is void: claim again."
        )
    return MergeJob.model_validate(row)


async def _failed(actor: Actor, job_id: UUID, fencing_number: int, error: str, *, again: bool) -> MergeJob:
    async with actor.transaction() as tx:
        job = await _held(tx, job_id, fencing_number)
        retry = FIRST_RETRY_SECONDS * 2 ** (job.attempt - 1) if again and job.attempt < MAX_ATTEMPTS else None
        await queries.fail_job(tx, job_id, error, retry)
        merge = await service.readable_merge(tx, job.merge_id)
        kind = EventKind.MERGE_JOB_FAILED if retry is None else EventKind.MERGE_JOB_QUEUED
        await service.tell(tx, actor, kind, merge, job_id=str(job_id), job_type=job.job_type, error=error)
        return await service.readable_job(tx, job_id)


async def step(actor: Actor, job_id: UUID, wanted: JobStepRequest) -> JobStep:
    """The next step of the job, as the merge's creator and within their rights.

    What a person has to put right, such as a lock or a missing approval, fails the job with its reason.
    """
    async with actor.transaction() as tx:
        job = await _held(tx, job_id, wanted.fencing_number, wanted.lease_seconds)
        merge = await service.readable_merge(tx, job.merge_id)
    creator = service.acting_for(actor, merge.created_by)
    try:
        if job.job_type is JobType.SUBMIT_GATE:
            await changelists.refuse_missing_content(creator, merge.changelist_id)
        return await _step(creator, job, wanted)
    except (LeaseLost, Unavailable):
        raise
    except Problem as problem:
        reason = f"{problem.title}: {problem.detail}"
    except errors.InvalidAuthorizationSpecification:
        reason = f"{merge.creator}, who began the merge, has no active account any more. Begin it anew."
    except errors.InsufficientPrivilege:
        reason = f"{merge.creator}, who began the merge, may not write all of its paths any more."
    return JobStep(job=await _failed(actor, job_id, wanted.fencing_number, reason, again=False), texts=[])


async def _step(creator: Actor, job: MergeJob, wanted: JobStepRequest) -> JobStep:
    async with creator.transaction() as tx:
        merge = await service.open_merge(tx, job.merge_id, ProjectRole.LEAD)
        await _held(tx, job.id, wanted.fencing_number)
        match job.job_type:
            case JobType.AUTO_INTEGRATE:
                return await _integrate(tx, creator, merge, job, wanted.texts_tried)
            case JobType.CONFLICT_STAGING:
                return await _stage_conflicts(tx, creator, merge, job)
            case JobType.SUBMIT_GATE:
                return await _pass_gate(tx, creator, merge, job)


async def _finished(tx: Transaction, job: MergeJob) -> JobStep:
    return JobStep(job=await service.readable_job(tx, job.id), texts=[])


async def _integrate(tx: Transaction, creator: Actor, merge: BranchMerge, job: MergeJob, texts_tried: bool) -> JobStep:
    target = await branches.readable_branch(tx, merge.target_branch_id)
    status = await service.stage(tx, merge, target.head_no)
    if merge.merge_text and not texts_tried:
        texts = [service.conflict_of(row) for row in await queries.unresolved(tx, merge.id) if row["mergeable"]]
        if texts:
            return JobStep(job=job, texts=texts)
    now = await service.readable_merge(tx, merge.id)
    result = {"paths": now.paths_count, "conflicts": now.conflicts_count, "size_bytes": now.size_bytes}
    if status is MergeStatus.CONFLICTED:
        await queries.finish_job(tx, job.id, JobStatus.STAGED, result)
        payload = {"unresolved": now.unresolved_count}
        await service.tell(tx, creator, EventKind.MERGE_CONFLICTED, merge, **payload)
    else:
        await queries.finish_job(tx, job.id, JobStatus.COMPLETED, result)
    return await _finished(tx, job)


async def _stage_conflicts(tx: Transaction, creator: Actor, merge: BranchMerge, job: MergeJob) -> JobStep:
    """Both sides of every conflict on one shelf, `Hero@source.png` beside `Hero@target.png`; the owners are told."""
    rows = await queries.unresolved(tx, merge.id)
    result: dict[str, object] = {"conflicts": len(rows)}
    if rows:
        await queries.delete_shelf(tx, merge.id)
        files = [
            (row[f"{side}_path"], side, row[f"{side}_sha256"])
            for row in rows
            for side in ("source", "target")
            if row[f"{side}_sha256"] is not None
        ]
        shelf_id = await shelves.shelve_conflicts(tx, creator, merge.changelist_id, files)
        await queries.link_shelf(tx, merge.id, shelf_id)
        owners = await queries.authors(tx, merge.project_id, service.authored(rows))
        result |= {"shelf_id": str(shelf_id), "owners": owners}
        await service.tell(tx, creator, EventKind.MERGE_CONFLICTS_STAGED, merge, **result)
    await queries.finish_job(tx, job.id, JobStatus.COMPLETED, result)
    return await _finished(tx, job)


async def _pass_gate(tx: Transaction, creator: Actor, merge: BranchMerge, job: MergeJob) -> JobStep:
    """Holds the target, so that nothing moves between the last look and the landing."""
    head = await queries.lock_target(tx, merge.target_branch_id)
    if head is None:
        raise ProjectArchived("The target takes no changes: its project is archived.")
    if head != merge.target_at and await service.stage(tx, merge, head) is MergeStatus.CONFLICTED:
        return await _ask_again(tx, creator, merge, job)
    merge = await service.readable_merge(tx, merge.id)
    if merge.paths_count:
        landed_no = (await changelists.submit_merge(tx, creator, merge.changelist_id)).number
    else:
        await changelists.abandon_merge(tx, merge.changelist_id)
        landed_no = await queries.land_nothing(tx, merge.project_id, merge.target_branch_id)
    result = {"landed_no": landed_no, "paths": merge.paths_count, "size_bytes": merge.size_bytes}
    await queries.delete_shelf(tx, merge.id)
    await queries.finish_job(tx, job.id, JobStatus.COMPLETED, result, gate_passed=True)
    await queries.set_merged(tx, merge.id, landed_no)
    await service.tell(tx, creator, EventKind.MERGE_MERGED, merge, **result)
    return await _finished(tx, job)


async def _ask_again(tx: Transaction, creator: Actor, merge: BranchMerge, job: MergeJob) -> JobStep:
    """The target has moved, and the renewed plan has new conflicts: the gate waits for them."""
    await queries.hold_for_choices(tx, merge.id)
    await queries.queue_job(tx, merge.project_id, merge.id, JobType.CONFLICT_STAGING, anew=JobStatus.COMPLETED)
    await queries.queue_again(tx, job.id)
    now = await service.readable_merge(tx, merge.id)
    await service.tell(tx, creator, EventKind.MERGE_CONFLICTED, merge, unresolved=now.unresolved_count)
    return await _finished(tx, job)


async def put_text(
    actor: Actor,
    job_id: UUID,
    conflict_id: UUID,
    fencing_number: int,
    body: AsyncIterator[bytes],
    size_bytes: int | None,
) -> MergeConflictDetail:
    """The content that a three-way merge of texts has made, whole. Written and chosen as the merge's creator."""
    async with actor.transaction() as tx:
        job = await _held(tx, job_id, fencing_number)
        await _require_text_of(tx, job, conflict_id)
        merge = await service.readable_merge(tx, job.merge_id)
    creator = service.acting_for(actor, merge.created_by)
    stored = await objects.put_object(creator, merge.project_id, None, body, size_bytes)
    async with creator.transaction() as tx:
        await service.open_merge(tx, merge.id, ProjectRole.LEAD)
        await _require_text_of(tx, await _held(tx, job_id, fencing_number), conflict_id)
        return await service.record_resolution(
            tx, creator, conflict_id, Resolution.MERGED, stored.sha256, "Merged line by line from both sides."
        )


async def _require_text_of(tx: Transaction, job: MergeJob, conflict_id: UUID) -> None:
    """The creator may see other merges and other projects: their conflicts are none of this job's."""
    if job.job_type is not JobType.AUTO_INTEGRATE:
        raise Invalid(f"Texts are merged by a job of type {JobType.AUTO_INTEGRATE}, not by {job.job_type}.")
    row = await queries.conflict(tx, conflict_id)
    if row is None or row["merge_id"] != job.merge_id:
        raise NotFound(f"The merge of this job has no conflict {conflict_id}. A renewed plan may have settled it.")
    if not row["mergeable"]:
        raise Invalid(f"{row['path']!r} is not a text that is merged line by line: a person chooses.")
