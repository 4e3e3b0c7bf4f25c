"""/projects/{id}/objects"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response, status

from depot_api.blobstore import pack
from depot_api.identity.actor import CurrentUser
from depot_api.objects import service
from depot_api.objects.models import BeingRestored, FetchQuery, MissingAnswer, MissingQuery, StoredObject, StoredPack
from depot_api.problems import (
    ContentDamaged,
    Forbidden,
    HashMismatch,
    LengthRequired,
    Obliterated,
    ProjectArchived,
    QuotaExceeded,
    RangeNotSatisfiable,
    StorageFull,
    UnsupportedMediaType,
    documented,
)
from depot_api.wire import Sha256Hex

router = APIRouter(prefix="/projects/{project_id}/objects", tags=["objects"])

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
RESTORING: dict[int | str, dict[str, Any]] = {
    202: {"model": BeingRestored, "description": "An archive restores it. Ask again after Retry-After."}
}
CONTENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": BINARY}, "description": "The content, gzip-coded where accepted."},
    206: {"content": {"application/octet-stream": BINARY}, "description": "A range of the content."},
    304: {"description": "You have it already."},
    **RESTORING,
}
WRITES = (Forbidden, ProjectArchived, LengthRequired, HashMismatch, StorageFull, QuotaExceeded)
PathSha256 = Annotated[Sha256Hex, Path(description="SHA-256 of the content in lower-case hex.")]


def announced_bytes(request: Request) -> int | None:
    """What Content-Length says; the server has checked that it is a number, and ends the body there."""
    announced = request.headers.get("content-length")
    return int(announced) if announced is not None else None


def body_of(media_type: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: BINARY}}}


@router.post("/missing", summary="Ask which objects have to be sent", responses=documented())
async def missing_objects(project_id: UUID, body: MissingQuery, actor: CurrentUser) -> MissingAnswer:
    return MissingAnswer(missing=await service.missing_objects(actor, project_id, body.sha256))


@router.post(
    "/pack",
    status_code=status.HTTP_201_CREATED,
    summary="Send many small objects in one request",
    responses=documented(*WRITES, UnsupportedMediaType),
    openapi_extra=body_of(pack.MEDIA_TYPE),
)
async def put_pack(project_id: UUID, request: Request, actor: CurrentUser) -> StoredPack:
    """Entries of 32 bytes SHA-256, 8 bytes big-endian length and the content. All are stored, or none."""
    if request.headers.get("content-type", "") != pack.MEDIA_TYPE:
        raise UnsupportedMediaType(f"Send a pack with Content-Type {pack.MEDIA_TYPE}.")
    return await service.put_pack(actor, project_id, request.stream(), announced_bytes(request))


@router.post(
    "/fetch",
    summary="Get many objects in one streamed answer",
    response_class=Response,
    responses={
        200: {"content": {pack.GZIP_MEDIA_TYPE: BINARY}},
        **RESTORING,
        **documented(ContentDamaged, Obliterated),
    },
)
async def fetch_objects(project_id: UUID, body: FetchQuery, actor: CurrentUser) -> Response:
    """A pack whose entries are the stored gzip members, named by the SHA-256 of their content."""
    return await service.fetch_objects(actor, project_id, body.sha256)


@router.put(
    "/{sha256}",
    status_code=status.HTTP_201_CREATED,
    summary="Send one object",
    responses=documented(*WRITES),
    openapi_extra=body_of("application/octet-stream"),
)
async def put_object(project_id: UUID, sha256: PathSha256, request: Request, actor: CurrentUser) -> StoredObject:
    return await service.put_object(actor, project_id, sha256, request.stream(), announced_bytes(request))


@router.get(
    "/{sha256}",
    summary="Get one object",
    response_class=Response,
    responses={**CONTENT_RESPONSES, **documented(RangeNotSatisfiable, ContentDamaged, Obliterated)},
)
async def get_object(project_id: UUID, sha256: PathSha256, request: Request, actor: CurrentUser) -> Response:
    return await service.get_object(actor, project_id, sha256, request)
