"""Rules of assets. A version comes into being through submit, also where one request sends just one file."""

from datetime import datetime
from uuid import UUID

from depot_api import events
from depot_api.assets import queries
from depot_api.assets.models import (
    MAX_TAGS,
    MAX_VERSION,
    Asset,
    AssetCreate,
    AssetDelete,
    AssetMove,
    AssetRestore,
    AssetUpdate,
    AssetVersion,
    FoundAsset,
    PastVersion,
    VersionCreate,
)
from depot_api.assets.queries import Filters
from depot_api.assets.upload import VersionForm
from depot_api.branches import service as branches
from depot_api.changelists import service as changelists
from depot_api.changelists.models import ChangelistCreate, Item, ItemAction, Submitted
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.objects import service as objects
from depot_api.paths import broken_rule, path_key
from depot_api.permissions import service as permissions
from depot_api.permissions.models import PathAccess
from depot_api.problems import AlreadyExists, Invalid, InvalidPath, NotFound, PathInUse, Problem, ProblemError
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, encode_cursor

MAX_CHANGELIST_NO = 2**63 - 1


async def readable_asset(tx: Transaction, asset_id: UUID) -> Asset:
    row = await queries.asset(tx, asset_id)
    if row is None:
        raise NotFound(f"There is no asset {asset_id} that you can see.")
    return Asset.model_validate(row)


async def create_asset(actor: Actor, wanted: AssetCreate, idempotency_key: str | None) -> Asset:
    async def create() -> Asset:
        await projects.writable_project(tx, wanted.project_id, ProjectRole.CONTRIBUTOR)
        await _refuse_unwritable(tx, wanted.project_id, wanted.path)
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

    _refuse_broken_path(wanted.path, "/path")
    key = path_key(wanted.path)
    async with actor.transaction() as tx:
        request = "create asset " + wanted.model_dump_json()
        return await once(tx, actor.user_id, idempotency_key, request, Asset, create)


def _refuse_broken_path(path: str, pointer: str) -> None:
    if rule := broken_rule(path):
        broken = ProblemError(detail=f"{path!r} {rule}", pointer=pointer)
        raise InvalidPath(f"{broken.detail}. Choose another path.", errors=[broken])


async def _refuse_unwritable(tx: Transaction, project_id: UUID, path: str) -> None:
    await permissions.refuse_forbidden(tx, project_id, [(path, path_key(path), PathAccess.WRITE)], "/path")


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


async def update_asset(actor: Actor, asset_id: UUID, wanted: AssetUpdate) -> Asset:
    async with actor.transaction() as tx:
        asset = await readable_asset(tx, asset_id)
        await projects.writable_project(tx, asset.project_id, ProjectRole.CONTRIBUTOR)
        await _refuse_unwritable(tx, asset.project_id, asset.path)
        row = await queries.update_asset(
            tx, asset_id, wanted.asset_type, wanted.tags, wanted.add_tags, wanted.remove_tags, wanted.metadata
        )
        if len(row["tags"]) > MAX_TAGS:
            raise Invalid(
                f"{asset.path!r} would have {len(row['tags'])} tags, and at most {MAX_TAGS} are taken.",
                errors=[ProblemError(detail="too many", pointer="/add_tags")],
            )
        changes = wanted.model_dump(mode="json", exclude_defaults=True)
        payload = {"asset_id": str(asset_id), "path": asset.path, **changes}
        await events.record(tx, asset.project_id, EventKind.ASSET_UPDATED, actor.user_id, payload)
    return Asset.model_validate(row)


async def create_version(
    actor: Actor, asset_id: UUID, wanted: VersionCreate, idempotency_key: str | None
) -> AssetVersion:
    asset, branch_id = await _writable_asset(actor, asset_id, wanted.branch_id)
    item = Item(
        action=ItemAction.EDIT if wanted.base_version else ItemAction.ADD,
        path=asset.path,
        base_version=wanted.base_version,
        sha256=wanted.sha256,
    )
    submitted = await _submit_one(actor, asset, branch_id, item, wanted, idempotency_key)
    return await _version_made(actor, asset_id, submitted)


async def move_asset(actor: Actor, asset_id: UUID, wanted: AssetMove, idempotency_key: str | None) -> AssetVersion:
    """The first version of the asset at the new path; type, tags and metadata go along."""
    _refuse_broken_path(wanted.to_path, "/to_path")
    asset, branch_id = await _writable_asset(actor, asset_id, wanted.branch_id)
    async with actor.transaction() as tx:
        content = await _content_of(tx, asset, wanted.base_version)
    item = Item(
        action=ItemAction.MOVE,
        path=wanted.to_path,
        moved_from=asset.path,
        base_version=wanted.base_version,
        sha256=content,
    )
    submitted = await _submit_one(actor, asset, branch_id, item, wanted, idempotency_key)
    async with actor.transaction() as tx:
        moved = await queries.asset_at(tx, asset.project_id, path_key(wanted.to_path))
    assert moved is not None, "a submitted move made the asset it moves to"
    return await _version_made(actor, moved["id"], submitted)


async def delete_asset(actor: Actor, asset_id: UUID, wanted: AssetDelete, idempotency_key: str | None) -> Submitted:
    """Its history stays; the branch no longer shows it."""
    asset, branch_id = await _writable_asset(actor, asset_id, wanted.branch_id)
    item = Item(action=ItemAction.DELETE, path=asset.path, base_version=wanted.base_version)
    return await _submit_one(actor, asset, branch_id, item, wanted, idempotency_key)


async def restore_asset(
    actor: Actor, asset_id: UUID, wanted: AssetRestore, idempotency_key: str | None
) -> AssetVersion:
    """A new version at a path that was deleted, from content that it had."""
    asset, branch_id = await _writable_asset(actor, asset_id, wanted.branch_id)
    async with actor.transaction() as tx:
        content = (
            await _content_of(tx, asset, wanted.version)
            if wanted.version
            else await _last_content_on(tx, asset, branch_id)
        )
    item = Item(action=ItemAction.ADD, path=asset.path, sha256=content)
    submitted = await _submit_one(actor, asset, branch_id, item, wanted, idempotency_key)
    return await _version_made(actor, asset_id, submitted)


async def _writable_asset(actor: Actor, asset_id: UUID, branch_id: UUID | None) -> tuple[Asset, UUID]:
    """The asset, and the branch that was named or else the project's default."""
    async with actor.transaction() as tx:
        asset = await readable_asset(tx, asset_id)
        project = await projects.writable_project(tx, asset.project_id, ProjectRole.CONTRIBUTOR)
    return asset, branch_id or project.default_branch_id


async def _content_of(tx: Transaction, asset: Asset, number: int) -> str:
    content = await queries.content_of(tx, asset.id, number)
    if content is None:
        raise NotFound(f"{asset.path} has no version {number}; its last is {asset.last_version}.")
    return content.hex()


async def _last_content_on(tx: Transaction, asset: Asset, branch_id: UUID) -> str:
    branch = await branches.branch_of_project(tx, asset.project_id, branch_id)
    content = await queries.last_content_on(tx, asset.id, branch.id)
    if content is None:
        raise NotFound(f"{asset.path} never was on {branch.name}. Name the version whose content to take.")
    return content.hex()


async def _submit_one(
    actor: Actor,
    asset: Asset,
    branch_id: UUID,
    item: Item,
    wanted: VersionCreate | AssetMove | AssetDelete | AssetRestore,
    idempotency_key: str | None,
) -> Submitted:
    """The key stands for what was asked: what that means, such as the default branch, may be another thing later."""
    changelist = ChangelistCreate(project_id=asset.project_id, branch_id=branch_id, description=wanted.description)
    request = f"{type(wanted).__name__} {asset.id} {wanted.model_dump_json()}"
    return await changelists.submit_item(actor, changelist, item, idempotency_key, request)


async def _version_made(actor: Actor, asset_id: UUID, submitted: Submitted) -> AssetVersion:
    async with actor.transaction() as tx:
        return AssetVersion.model_validate(await queries.version(tx, asset_id, submitted.id))


async def list_history(actor: Actor, asset_id: UUID, limit: int, cursor: str | None) -> Page[PastVersion]:
    """Newest first, with those at the paths that the asset was moved here from."""
    place = decode_cursor(cursor, int, str)
    before = (int(place[0]), str(place[1])) if place else (MAX_CHANGELIST_NO, "")
    async with actor.transaction() as tx:
        await readable_asset(tx, asset_id)
        rows = await queries.history(tx, asset_id, before, limit)
    items = [PastVersion.model_validate(row) for row in rows]
    more = len(rows) == limit
    next_cursor = encode_cursor(rows[-1]["changelist_no"], rows[-1]["path_key"]) if more else None
    return Page(items=items, next_cursor=next_cursor)


async def search(
    actor: Actor,
    project_id: UUID,
    branch_id: UUID | None,
    *,
    prefix: str | None,
    name: str | None,
    asset_type: str | None,
    tags: list[str] | None,
    metadata: str | None,
    author: str | None,
    changed_since: datetime | None,
    deleted: bool,
    limit: int,
    cursor: str | None,
) -> Page[FoundAsset]:
    """In path order, what lives on the branch, or with `deleted` what was deleted there."""
    after = decode_cursor(cursor, str)
    wanted = Filters(
        prefix_key=path_key(prefix) if prefix else None,
        name_pattern=f"%{_like_literal(path_key(name))}%" if name else None,
        asset_type=asset_type,
        tags=tags or None,
        metadata=metadata,
        author=author,
        changed_since=changed_since,
        deleted=deleted,
    )
    async with actor.transaction() as tx:
        project = await projects.readable_project(tx, project_id)
        branch = await branches.branch_of_project(tx, project_id, branch_id or project.default_branch_id)
        rows = await queries.search(tx, project_id, branch.id, wanted, str(after[0]) if after else "", limit)
    items = [FoundAsset.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["path_key"]) if len(rows) == limit else None)


def _like_literal(text: str) -> str:
    """What matches itself in a LIKE pattern."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def upload_version(actor: Actor, asset_id: UUID, form: VersionForm, idempotency_key: str | None) -> AssetVersion:
    """Of the form, no more than what comes before the file is read until the sender's right and room are certain."""
    async with actor.transaction() as tx:
        asset = await readable_asset(tx, asset_id)
        await projects.writable_project(tx, asset.project_id, ProjectRole.CONTRIBUTOR)
    size_bytes = await form.begin()
    stored = await objects.put_object(actor, asset.project_id, None, form.file(), size_bytes)
    wanted = VersionCreate(sha256=stored.sha256, **form.fields.model_dump())
    return await create_version(actor, asset_id, wanted, idempotency_key)
