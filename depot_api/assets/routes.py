"""/assets and /projects/…/search"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response, status

from depot_api.assets import service
from depot_api.assets.models import (
    MAX_TAGS,
    MAX_VERSION,
    Asset,
    AssetCreate,
    AssetDelete,
    AssetMove,
    AssetRestore,
    AssetType,
    AssetUpdate,
    AssetVersion,
    FoundAsset,
    MetadataText,
    PastVersion,
    Tag,
    VersionCreate,
    VersionFields,
)
from depot_api.assets.upload import FILE, MEDIA_TYPE, VersionForm
from depot_api.changelists.models import Submitted
from depot_api.idempotency import Key
from depot_api.identity.actor import CurrentUser
from depot_api.objects import service as objects
from depot_api.objects.routes import CONTENT_RESPONSES, announced_bytes
from depot_api.problems import (
    AlreadyExists,
    ContentDamaged,
    Forbidden,
    IdempotencyKeyReused,
    InvalidPath,
    LengthRequired,
    Locked,
    LockRequired,
    MissingContent,
    Obliterated,
    PathForbidden,
    PathInUse,
    ProjectArchived,
    QuotaExceeded,
    RangeNotSatisfiable,
    StaleBase,
    StorageFull,
    UnsupportedMediaType,
    documented,
)
from depot_api.wire import Cursor, Limit, Page, Text, Timestamp

router = APIRouter(prefix="/assets", tags=["assets"])

search_router = APIRouter(tags=["assets"])

MIN_NAME_CHARACTERS = 3  # a trigram: less than one would read every path
VersionNumber = Annotated[int, Path(ge=1, le=MAX_VERSION)]
_FIELDS = VersionFields.model_json_schema()
VERSION_UPLOAD = {
    **_FIELDS,
    "properties": {FILE: {"type": "string", "contentMediaType": "application/octet-stream"}, **_FIELDS["properties"]},
    "required": [FILE],
}
SUBMIT_PROBLEMS = (
    Forbidden,
    ProjectArchived,
    StaleBase,
    Locked,
    LockRequired,
    MissingContent,
    IdempotencyKeyReused,
)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create an asset: a path with type, tags and metadata, and no content yet",
    responses=documented(
        Forbidden, PathForbidden, ProjectArchived, AlreadyExists, InvalidPath, PathInUse, IdempotencyKeyReused
    ),
)
async def create_asset(body: AssetCreate, actor: CurrentUser, idempotency_key: Key = None) -> Asset:
    return await service.create_asset(actor, body, idempotency_key)


@router.get("", summary="List a project's assets in path order", responses=documented())
async def list_assets(
    actor: CurrentUser,
    project_id: UUID,
    prefix: Annotated[Text, Query(max_length=4096, description="Paths that begin so, in any case.")] = "",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Asset]:
    return await service.list_assets(actor, project_id, prefix, limit, cursor)


@router.get("/{asset_id}", summary="Get an asset", responses=documented())
async def get_asset(asset_id: UUID, actor: CurrentUser) -> Asset:
    return await service.get_asset(actor, asset_id)


@router.patch(
    "/{asset_id}",
    summary="Change an asset's type, tags or metadata",
    responses=documented(Forbidden, PathForbidden, ProjectArchived),
)
async def update_asset(asset_id: UUID, body: AssetUpdate, actor: CurrentUser) -> Asset:
    return await service.update_asset(actor, asset_id, body)


@router.post(
    "/{asset_id}/move",
    status_code=status.HTTP_201_CREATED,
    summary="Move or rename an asset on a branch, with its history",
    responses=documented(*SUBMIT_PROBLEMS, InvalidPath, PathInUse),
)
async def move_asset(asset_id: UUID, body: AssetMove, actor: CurrentUser, idempotency_key: Key = None) -> AssetVersion:
    return await service.move_asset(actor, asset_id, body, idempotency_key)


@router.post(
    "/{asset_id}/delete",
    summary="Delete an asset on a branch; its history stays",
    responses=documented(*SUBMIT_PROBLEMS),
)
async def delete_asset(asset_id: UUID, body: AssetDelete, actor: CurrentUser, idempotency_key: Key = None) -> Submitted:
    return await service.delete_asset(actor, asset_id, body, idempotency_key)


@router.post(
    "/{asset_id}/restore",
    status_code=status.HTTP_201_CREATED,
    summary="Bring back an asset that was deleted on a branch",
    responses=documented(*SUBMIT_PROBLEMS, PathInUse),
)
async def restore_asset(
    asset_id: UUID, body: AssetRestore, actor: CurrentUser, idempotency_key: Key = None
) -> AssetVersion:
    return await service.restore_asset(actor, asset_id, body, idempotency_key)


@router.get(
    "/{asset_id}/history",
    summary="List an asset's versions, with those under the paths it was moved from, newest first",
    responses=documented(),
)
async def list_history(
    asset_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[PastVersion]:
    return await service.list_history(actor, asset_id, limit, cursor)


@router.get("/{asset_id}/versions", summary="List an asset's versions, newest first", responses=documented())
async def list_versions(
    asset_id: UUID, actor: CurrentUser, limit: Limit = 100, cursor: Cursor = None
) -> Page[AssetVersion]:
    return await service.list_versions(actor, asset_id, limit, cursor)


@router.post(
    "/{asset_id}/versions",
    status_code=status.HTTP_201_CREATED,
    summary="Submit a new version from content that was sent before",
    responses=documented(*SUBMIT_PROBLEMS),
)
async def create_version(
    asset_id: UUID, body: VersionCreate, actor: CurrentUser, idempotency_key: Key = None
) -> AssetVersion:
    return await service.create_version(actor, asset_id, body, idempotency_key)


@router.post(
    "/{asset_id}/versions/upload",
    status_code=status.HTTP_201_CREATED,
    summary="Send a file and submit it as a new version",
    responses=documented(*SUBMIT_PROBLEMS, StorageFull, QuotaExceeded, LengthRequired, UnsupportedMediaType),
    openapi_extra={"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": VERSION_UPLOAD}}}},
)
async def upload_version(
    asset_id: UUID, request: Request, actor: CurrentUser, idempotency_key: Key = None
) -> AssetVersion:
    """The file streams into the store, after who sends it, their role and the quota were looked at."""
    form = VersionForm(request.headers.get("content-type", ""), request.stream(), announced_bytes(request))
    return await service.upload_version(actor, asset_id, form, idempotency_key)


@router.get(
    "/{asset_id}/versions/{number}/content",
    summary="Get a version's content",
    response_class=Response,
    responses={**CONTENT_RESPONSES, **documented(RangeNotSatisfiable, ContentDamaged, Obliterated)},
)
async def get_content(asset_id: UUID, number: VersionNumber, request: Request, actor: CurrentUser) -> Response:
    return await objects.get_version_content(actor, asset_id, number, request)


@search_router.get("/projects/{project_id}/search", summary="Search a project's assets", responses=documented())
async def search(
    project_id: UUID,
    actor: CurrentUser,
    branch_id: Annotated[UUID | None, Query(description="Left out: the project's default branch.")] = None,
    prefix: Annotated[Text | None, Query(max_length=4096, description="Paths that begin so, in any case.")] = None,
    name: Annotated[
        Text | None,
        Query(min_length=MIN_NAME_CHARACTERS, max_length=1024, description="File names that hold this, in any case."),
    ] = None,
    asset_type: Annotated[AssetType | None, Query(alias="type", description="Exactly this type.")] = None,
    tag: Annotated[
        list[Tag] | None, Query(max_length=MAX_TAGS, description="Repeatable: assets that have all of them.")
    ] = None,
    metadata: Annotated[
        MetadataText | None, Query(max_length=10_000, description="A JSON object that the asset's metadata contains.")
    ] = None,
    author: Annotated[
        Text | None, Query(max_length=100, description="Username: assets that they submitted a version of.")
    ] = None,
    changed_since: Annotated[
        Timestamp | None, Query(description="Assets with a version since then; of the author when one is given.")
    ] = None,
    deleted: Annotated[bool, Query(description="What was deleted on the branch, instead of what lives there.")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[FoundAsset]:
    """What matches all of the filters, in path order, with its head on the branch."""
    return await service.search(
        actor,
        project_id,
        branch_id,
        prefix=prefix,
        name=name,
        asset_type=asset_type,
        tags=tag,
        metadata=metadata,
        author=author,
        changed_since=changed_since,
        deleted=deleted,
        limit=limit,
        cursor=cursor,
    )
