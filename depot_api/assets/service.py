"""Rules of assets. A version comes into being through submit, also where one request sends just one file."""

from collections.abc import AsyncIterator
from uuid import UUID

from depot_api import events
from depot_api.assets import queries
from depot_api.assets.models import Asset, AssetCreate, AssetVersion, VersionCreate
from depot_api.changelists import service as changelists
from depot_api.changelists.models import ChangelistCreate, Item, ItemAction
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.identity.actor import Actor
from depot_api.objects import service as objects
from depot_api.paths import broken_rule, path_key
from depot_api.preconditions import ANY
from depot_api.problems import AlreadyExists, InvalidPath, NotFound, PathInUse, Problem, ProblemError
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, encode_cursor

MAX_VERSION = 2**31 - 1


async def readable_asset(tx: Transaction, asset_id: UUID) -> Asset:
    row = await queries.asset(tx, asset_id)
    if row is None:
        raise NotFound(f"There is no asset {asset_id} that you can see.")
    return Asset.model_validate(row)


async def create_asset(actor: Actor, wanted: AssetCreate) -> Asset:
    if rule := broken_rule(wanted.path):
        broken = ProblemError(detail=f"{wanted.path!r} {rule}", pointer="/path")
        raise InvalidPath(f"{broken.detail}. Choose another path.", errors=[broken])
    key = path_key(wanted.path)
    async with actor.transaction() as tx:
        await projects.writable_project(tx, wanted.project_id, ProjectRole.CONTRIBUTOR)
        row = await queries.insert_asset(
            tx,
            wanted.project_id,
            key,
            wanted.path,
            wanted.asset_type,
            list(wanted.tags),
            dict(wanted.metadata),
            actor.user_id,
        )
        if row is None:
            raise _taken(wanted.path, await queries.asset_at(tx, wanted.project_id, key))
        payload = {"asset_id": str(row["id"]), "path": wanted.path}
        await events.record(tx, wanted.project_id, EventKind.ASSET_CREATED, actor.user_id, payload)
    return Asset.model_validate(row)


def _taken(path: str, existing: dict[str, object] | None) -> Problem:
    there = existing["path"] if existing else path
    errors = [ProblemError(detail=f"{there!r} is there", pointer="/path")]
    if there == path:
        return AlreadyExists(f"There is an asset at {path!r} already.", errors=errors)
    return PathInUse(f"{path!r} differs only in case from {there!r}. Use the spelling that is there.", errors=errors)


async def get_asset(actor: Actor, asset_id: UUID) -> Asset:
    async with actor.transaction() as tx:
        return await readable_asset(tx, asset_id)


async def list_assets(actor: Actor, project_id: UUID, prefix: str, limit: int, cursor: str | None) -> Page[Asset]:
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.assets(tx, project_id, path_key(prefix), str(after[0]) if after else "", limit)
    items = [Asset.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["path_key"]) if len(rows) == limit else None)


async def list_versions(actor: Actor, asset_id: UUID, limit: int, cursor: str | None) -> Page[AssetVersion]:
    """Newest first."""
    before = decode_cursor(cursor, int)
    async with actor.transaction() as tx:
        await readable_asset(tx, asset_id)
        rows = await queries.versions(tx, asset_id, min(int(before[0]), MAX_VERSION) if before else MAX_VERSION, limit)
    items = [AssetVersion.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].number) if len(items) == limit else None)


async def create_version(actor: Actor, asset_id: UUID, wanted: VersionCreate) -> AssetVersion:
    """A changelist of one item, submitted."""
    async with actor.transaction() as tx:
        asset = await readable_asset(tx, asset_id)
        project = await projects.writable_project(tx, asset.project_id, ProjectRole.CONTRIBUTOR)
    changelist = await changelists.create_changelist(
        actor,
        ChangelistCreate(
            project_id=project.id,
            branch_id=wanted.branch_id or project.default_branch_id,
            description=wanted.description,
        ),
        None,
    )
    item = Item(
        action=ItemAction.EDIT if wanted.base_version else ItemAction.ADD,
        path=asset.path,
        base_version=wanted.base_version,
        sha256=wanted.sha256,
    )
    try:
        await changelists.put_items(actor, changelist.id, [item])
        await changelists.submit(actor, changelist.id, None, ANY)
    except Problem:
        await changelists.abandon_changelist(actor, changelist.id, ANY)
        raise
    async with actor.transaction() as tx:
        return AssetVersion.model_validate(await queries.version(tx, asset_id, changelist.id))


async def upload_version(
    actor: Actor,
    asset_id: UUID,
    body: AsyncIterator[bytes],
    size_bytes: int | None,
    branch_id: UUID | None,
    base_version: int | None,
    description: str,
) -> AssetVersion:
    async with actor.transaction() as tx:
        asset = await readable_asset(tx, asset_id)
    stored = await objects.put_object(actor, asset.project_id, None, body, size_bytes)
    wanted = VersionCreate(
        branch_id=branch_id, sha256=stored.sha256, base_version=base_version, description=description
    )
    return await create_version(actor, asset_id, wanted)
