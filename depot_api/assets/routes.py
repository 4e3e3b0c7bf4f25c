"""/assets"""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Path, Query, Request, Response, UploadFile, status

from depot_api.assets import service
from depot_api.assets.models import Asset, AssetCreate, AssetVersion, VersionCreate
from depot_api.identity.actor import CurrentUser
from depot_api.objects import service as objects
from depot_api.objects.receiving import PIECE_BYTES
from depot_api.objects.routes import CONTENT_RESPONSES
from depot_api.problems import (
    AlreadyExists,
    ContentDamaged,
    Forbidden,
    InvalidPath,
    Locked,
    MissingContent,
    PathInUse,
    ProjectArchived,
    QuotaExceeded,
    RangeNotSatisfiable,
    StaleBase,
    StorageFull,
    documented,
)
from depot_api.wire import Cursor, Limit, Page, Text

router = APIRouter(prefix="/assets", tags=["assets"])

MAX_INT = 2**31 - 1
VersionNumber = Annotated[int, Path(ge=1, le=MAX_INT)]
SUBMIT_PROBLEMS = (Forbidden, ProjectArchived, StaleBase, Locked, MissingContent)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create an asset: a path with type, tags and metadata, and no content yet",
    responses=documented(Forbidden, ProjectArchived, AlreadyExists, InvalidPath, PathInUse),
)
async def create_asset(body: AssetCreate, actor: CurrentUser) -> Asset:
    return await service.create_asset(actor, body)


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
async def create_version(asset_id: UUID, body: VersionCreate, actor: CurrentUser) -> AssetVersion:
    return await service.create_version(actor, asset_id, body)


@router.post(
    "/{asset_id}/versions/upload",
    status_code=status.HTTP_201_CREATED,
    summary="Send a file and submit it as a new version",
    responses=documented(*SUBMIT_PROBLEMS, StorageFull, QuotaExceeded),
)
async def upload_version(
    asset_id: UUID,
    actor: CurrentUser,
    file: UploadFile,
    branch_id: Annotated[UUID | None, Form()] = None,
    base_version: Annotated[int | None, Form(ge=1, le=MAX_INT)] = None,
    description: Annotated[Text, Form(max_length=10_000)] = "",
) -> AssetVersion:
    return await service.upload_version(actor, asset_id, _pieces(file), file.size, branch_id, base_version, description)


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(PIECE_BYTES):
        yield piece


@router.get(
    "/{asset_id}/versions/{number}/content",
    summary="Get a version's content",
    response_class=Response,
    responses={**CONTENT_RESPONSES, **documented(RangeNotSatisfiable, ContentDamaged)},
)
async def get_content(asset_id: UUID, number: VersionNumber, request: Request, actor: CurrentUser) -> Response:
    return await objects.get_version_content(actor, asset_id, number, request)
