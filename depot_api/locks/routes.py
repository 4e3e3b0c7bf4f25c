"""/locks, and the typemap of a project"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from depot_api.identity.actor import CurrentUser
from depot_api.locks import service
from depot_api.locks.models import Lock, LockBreak, LockCreate, LockItem, LockRenew, Locks, LocksCreate, Typemap
from depot_api.preconditions import IfMatch
from depot_api.problems import (
    Forbidden,
    InvalidPath,
    Locked,
    LockLost,
    PathForbidden,
    PathInUse,
    PreconditionRequired,
    ProjectArchived,
    StaleLockBase,
    StalePrecondition,
    documented,
)
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(tags=["locks"])


@router.post(
    "/locks",
    status_code=status.HTTP_201_CREATED,
    summary="Lock a path: nobody else can submit a change of it",
    responses={
        200: {"model": Lock, "description": "It was yours already and is renewed."},
        **documented(Forbidden, PathForbidden, ProjectArchived, Locked, StaleLockBase, InvalidPath),
    },
)
async def create_lock(body: LockCreate, actor: CurrentUser, response: Response) -> Lock:
    """Granted when your base is the newest version of the path on every branch (or as the typemap says), and nobody
    else's lease runs."""
    item = LockItem(path=body.path, base_version=body.base_version)
    locks, is_new = await service.acquire_locks(actor, body.project_id, body.branch_id, [item], body.lease_seconds)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return _tagged(response, locks[0])


@router.post(
    "/locks/batch",
    status_code=status.HTTP_201_CREATED,
    summary="Lock many paths, all or none",
    responses={
        200: {"model": Locks, "description": "All were yours already and are renewed."},
        **documented(Forbidden, PathForbidden, ProjectArchived, Locked, StaleLockBase, InvalidPath, PathInUse),
    },
)
async def create_locks(body: LocksCreate, actor: CurrentUser, response: Response) -> Locks:
    locks, is_new = await service.acquire_locks(actor, body.project_id, body.branch_id, body.items, body.lease_seconds)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return Locks(items=locks)


@router.get("/locks/{lock_id}", summary="Get a lock", responses=documented())
async def get_lock(lock_id: UUID, actor: CurrentUser, response: Response) -> Lock:
    return _tagged(response, await service.get_lock(actor, lock_id))


def _tagged(response: Response, lock: Lock) -> Lock:
    response.headers["ETag"] = f'"{lock.etag}"'
    return lock


@router.post(
    "/locks/{lock_id}/renew",
    summary="Let your lock's lease run on from now",
    responses=documented(Forbidden, PathForbidden, ProjectArchived, LockLost, StalePrecondition, PreconditionRequired),
)
async def renew_lock(
    lock_id: UUID, body: LockRenew, actor: CurrentUser, response: Response, if_match: IfMatch = None
) -> Lock:
    return _tagged(response, await service.renew_lock(actor, lock_id, body.lease_seconds, if_match))


@router.delete(
    "/locks/{lock_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Release your lock",
    responses=documented(Forbidden, ProjectArchived, StalePrecondition, PreconditionRequired),
)
async def release_lock(lock_id: UUID, actor: CurrentUser, if_match: IfMatch = None) -> None:
    await service.release_lock(actor, lock_id, if_match)


@router.post(
    "/locks/{lock_id}/break",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Break anybody's lock, with a reason that is kept",
    responses=documented(Forbidden, ProjectArchived, StalePrecondition),
)
async def break_lock(lock_id: UUID, body: LockBreak, actor: CurrentUser, if_match: IfMatch = None) -> None:
    await service.break_lock(actor, lock_id, body.reason, if_match)


@router.get("/projects/{project_id}/locks", summary="List a project's locks", responses=documented())
async def list_locks(
    project_id: UUID,
    actor: CurrentUser,
    path: Annotated[Text | None, Query(max_length=4096, description="On exactly this path, in any case.")] = None,
    prefix: Annotated[Text | None, Query(max_length=4096, description="On paths that begin so.")] = None,
    holder: Annotated[Text | None, Query(max_length=100, description="Held by the user of this name.")] = None,
    expired: Annotated[bool | None, Query(description="Only those whose lease has ended, or only others.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Lock]:
    """In path order."""
    return await service.list_locks(actor, project_id, path, prefix, holder, expired, limit, cursor)


@router.get("/projects/{project_id}/typemap", summary="Get the rules for a project's paths", responses=documented())
async def get_typemap(project_id: UUID, actor: CurrentUser) -> Typemap:
    return await service.get_typemap(actor, project_id)


@router.put(
    "/projects/{project_id}/typemap",
    summary="Replace the rules for a project's paths",
    responses=documented(Forbidden, ProjectArchived),
)
async def set_typemap(project_id: UUID, body: Typemap, actor: CurrentUser) -> Typemap:
    """They apply at once, to new and to existing paths alike. Of the rules that match a path, the last one holds."""
    return await service.set_typemap(actor, project_id, body)
