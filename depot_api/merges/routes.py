"""/branch-merges, /merge-conflicts, /merge-jobs"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response, status

from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.merges import execution, service
from depot_api.merges.models import (
    MAX_FENCING_NUMBER,
    BranchMerge,
    ClaimableJob,
    ClaimedJob,
    ConflictResolve,
    ConflictsResolve,
    ConflictsResolved,
    JobAdd,
    JobClaim,
    JobStep,
    JobStepRequest,
    JobUpdate,
    MergeConflict,
    MergeConflictDetail,
    MergeCreate,
    MergeJob,
    MergePlan,
    MergeStatus,
)
from depot_api.objects.routes import WRITES, announced_bytes, body_of
from depot_api.problems import (
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    Invalid,
    LeaseLost,
    MergeClosed,
    MissingContent,
    PathForbidden,
    ProblemError,
    ProjectArchived,
    documented,
)
from depot_api.wire import Cursor, Limit, Page

router = APIRouter(tags=["merges"])

CHANGES = (Forbidden, ProjectArchived, MergeClosed)


@router.post(
    "/branch-merges",
    status_code=status.HTTP_201_CREATED,
    summary="Begin to merge a branch into another, or see what that would do",
    responses={
        200: {"model": MergePlan, "description": "With preview: the plan. Nothing was written."},
        **documented(Forbidden, PathForbidden, ProjectArchived, IdempotencyKeyReused),
    },
)
async def create_merge(
    body: MergeCreate,
    actor: CurrentUser,
    response: Response,
    preview: Annotated[bool, Query(description="Only answer the plan.")] = False,
    idempotency_key: Key = None,
) -> BranchMerge | MergePlan:
    """Jobs that an executor takes up plan and stage it; a submit_gate job lands it as one changelist."""
    if preview:
        response.status_code = status.HTTP_200_OK
        return await service.preview_merge(actor, body)
    return await service.create_merge(actor, body, idempotency_key)


@router.get("/branch-merges/{merge_id}", summary="Get a merge", responses=documented())
async def get_merge(merge_id: UUID, actor: CurrentUser) -> BranchMerge:
    return await service.get_merge(actor, merge_id)


@router.get("/projects/{project_id}/branch-merges", summary="List a project's merges", responses=documented())
async def list_merges(
    project_id: UUID,
    actor: CurrentUser,
    wanted: Annotated[
        str, Query(alias="status", max_length=100, description="Only of these states, such as pending,conflicted.")
    ] = "",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[BranchMerge]:
    """Newest first."""
    return await service.list_merges(actor, project_id, _statuses(wanted), limit, cursor)


def _statuses(wanted: str) -> list[MergeStatus]:
    try:
        return [MergeStatus(name) for name in wanted.split(",") if name]
    except ValueError:
        known = ", ".join(MergeStatus)
        raise Invalid(
            f"{wanted!r} names a state that no merge has. Choose among {known}, with commas between.",
            errors=[ProblemError(detail=f"among {known}", pointer="/status")],
        ) from None


@router.post("/branch-merges/{merge_id}/cancel", summary="Cancel a merge", responses=documented(*CHANGES))
async def cancel_merge(merge_id: UUID, actor: CurrentUser) -> BranchMerge:
    """At any point before it lands. Nothing stays staged."""
    return await service.cancel_merge(actor, merge_id)


@router.get("/branch-merges/{merge_id}/conflicts", summary="List a merge's conflicts", responses=documented())
async def list_conflicts(
    merge_id: UUID,
    actor: CurrentUser,
    unresolved: Annotated[bool, Query(description="Only those that wait for a choice.")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[MergeConflict]:
    """By path, each with its three versions."""
    return await service.list_conflicts(actor, merge_id, unresolved, limit, cursor)


@router.post(
    "/branch-merges/{merge_id}/conflicts",
    summary="Choose a side for all conflicts that a pattern names",
    responses=documented(*CHANGES),
)
async def resolve_conflicts(merge_id: UUID, body: ConflictsResolve, actor: CurrentUser) -> ConflictsResolved:
    return await service.resolve_conflicts(actor, merge_id, body)


@router.get(
    "/merge-conflicts/{conflict_id}", summary="Get a conflict, with every choice made for it", responses=documented()
)
async def get_conflict(conflict_id: UUID, actor: CurrentUser) -> MergeConflictDetail:
    return await service.get_conflict(actor, conflict_id)


@router.patch(
    "/merge-conflicts/{conflict_id}",
    summary="Choose source, target or a version of your own",
    responses=documented(*CHANGES, MissingContent),
)
async def resolve_conflict(conflict_id: UUID, body: ConflictResolve, actor: CurrentUser) -> MergeConflictDetail:
    """A choice can be changed until the merge lands."""
    return await service.resolve_conflict(actor, conflict_id, body)


@router.get("/branch-merges/{merge_id}/jobs", summary="List a merge's jobs", responses=documented())
async def list_jobs(merge_id: UUID, actor: CurrentUser) -> list[MergeJob]:
    return await service.list_jobs(actor, merge_id)


@router.post(
    "/branch-merges/{merge_id}/jobs",
    status_code=status.HTTP_201_CREATED,
    summary="Queue a job of a merge, such as its submit_gate",
    responses=documented(*CHANGES),
)
async def add_job(merge_id: UUID, body: JobAdd, actor: CurrentUser) -> MergeJob:
    return await service.add_job(actor, merge_id, body.job_type)


# For executors ------------------------------------------------------------------------------------------------------


@router.get("/merge-jobs", summary="List the merge jobs that can be claimed now", responses=documented())
async def list_claimable(actor: CurrentUser, limit: Limit = 100) -> list[ClaimableJob]:
    """Of all projects that you see, the oldest first."""
    return await execution.list_claimable(actor, limit)


@router.post("/merge-jobs/claim", summary="Claim the oldest merge job that can be done", responses=documented())
async def claim_job(body: JobClaim, actor: CurrentUser) -> ClaimedJob:
    """For as long as the lease; its fencing number goes with every report. Of projects that you lead."""
    return await execution.claim(actor, body)


@router.get("/merge-jobs/{job_id}", summary="Get a merge job", responses=documented())
async def get_job(job_id: UUID, actor: CurrentUser) -> MergeJob:
    return await service.get_job(actor, job_id)


@router.patch(
    "/merge-jobs/{job_id}",
    summary="Prolong a lease, report a failure, or queue a failed job again",
    responses=documented(*CHANGES, LeaseLost, Conflict),
)
async def update_job(job_id: UUID, body: JobUpdate, actor: CurrentUser) -> MergeJob:
    return await execution.update_job(actor, job_id, body)


@router.post(
    "/merge-jobs/{job_id}/step",
    summary="Take the next step of a claimed job",
    responses=documented(Forbidden, ProjectArchived, LeaseLost),
)
async def step(job_id: UUID, body: JobStepRequest, actor: CurrentUser) -> JobStep:
    """Each step is done whole or not at all. When the job is not running any more, it is finished."""
    return await execution.step(actor, job_id, body)


@router.put(
    "/merge-jobs/{job_id}/texts/{conflict_id}",
    summary="Send the text that a claimed job has merged from both sides",
    responses=documented(*WRITES, LeaseLost, MergeClosed),
    openapi_extra=body_of("application/octet-stream"),
)
async def put_text(
    job_id: UUID,
    conflict_id: UUID,
    request: Request,
    actor: CurrentUser,
    fencing_number: Annotated[int, Query(ge=1, le=MAX_FENCING_NUMBER)],
) -> MergeConflictDetail:
    return await execution.put_text(
        actor, job_id, conflict_id, fencing_number, request.stream(), announced_bytes(request)
    )
