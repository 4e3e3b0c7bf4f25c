"""Rules of shelves: work in progress that others can fetch, and that no collection takes away."""

from collections.abc import Sequence
from uuid import UUID

from psycopg import errors

from depot_api import events
from depot_api.branches import service as branches
from depot_api.changelists import service as changelists
from depot_api.changelists.models import Item, ItemAction, ItemRow
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.objects import service as objects
from depot_api.paths import path_key
from depot_api.problems import (
    Conflict,
    EmptyChangelist,
    Forbidden,
    Locked,
    MissingContent,
    NoTargetBranch,
    NotFound,
    PathForbidden,
    ProblemError,
)
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.shelves import queries
from depot_api.shelves.models import (
    ChangelistShelve,
    Shelf,
    ShelfCreate,
    ShelfItem,
    ShelfUpdate,
    Unshelve,
    Unshelved,
)
from depot_api.wire import Page, decode_cursor, decode_uuid_cursor, encode_cursor


async def create_shelf(actor: Actor, wanted: ShelfCreate, idempotency_key: str | None) -> Shelf:
    async def create() -> Shelf:
        await projects.writable_project(tx, wanted.project_id, ProjectRole.CONTRIBUTOR)
        branch = await branches.readable_branch(tx, wanted.branch_id)
        if branch.project_id != wanted.project_id:
            raise NotFound(f"There is no branch {wanted.branch_id} in this project.")
        await _refuse_foreign_changelist(tx, wanted.project_id, wanted.changelist_id)
        await changelists.refuse_unknown_sources(tx, wanted.project_id, rows)
        shelf_id = await queries.insert_shelf(
            tx, wanted.project_id, wanted.branch_id, actor.user_id, wanted.changelist_id, wanted.description
        )
        await _put(tx, wanted.project_id, shelf_id, rows)
        return await _filled(tx, actor, shelf_id, EventKind.SHELF_CREATED)

    rows = changelists.item_rows(wanted.items)
    await _refuse_missing_content(actor, wanted.project_id, rows)
    async with actor.transaction() as tx:
        request = "create shelf " + wanted.model_dump_json()
        return await once(tx, actor.user_id, idempotency_key, request, Shelf, create)


async def shelve_changelist(
    actor: Actor, changelist_id: UUID, wanted: ChangelistShelve, idempotency_key: str | None
) -> Shelf:
    """Copies the items of an open changelist of the asker's own; they stay in the changelist."""

    async def create() -> Shelf:
        changelist = await changelists.open_changelist(tx, changelist_id)
        if changelist.branch_id is None:
            raise NoTargetBranch("The changelist names no branch, which a shelf needs. Create it with a branch_id.")
        if changelist.items_count == 0:
            raise EmptyChangelist("The changelist has no items. Add some, then shelve it.")
        await changelists.refuse_hidden_items(tx, changelist)
        description = changelist.description if wanted.description is None else wanted.description
        shelf_id = await queries.insert_shelf(
            tx, changelist.project_id, changelist.branch_id, actor.user_id, changelist_id, description
        )
        await queries.copy_items(tx, shelf_id, changelist_id)
        return await _filled(tx, actor, shelf_id, EventKind.SHELF_CREATED)

    async with actor.transaction() as tx:
        changelist = await changelists.readable_changelist(tx, changelist_id)
        hashes = await queries.changelist_content(tx, changelist_id)
    await _refuse_missing(actor, changelist.project_id, hashes)
    try:
        async with actor.transaction() as tx:
            request = f"shelve changelist {changelist_id} {wanted.model_dump_json()}"
            return await once(tx, actor.user_id, idempotency_key, request, Shelf, create)
    except errors.InsufficientPrivilege:
        raise PathForbidden("Permissions have changed: you may not write some of these paths any more.") from None


async def shelve_conflicts(
    tx: Transaction, actor: Actor, changelist_id: UUID, files: Sequence[tuple[str, str, bytes]]
) -> UUID:
    """Files (path, side, sha256) of a merge's conflicts, beside each other: `Hero@source.png`, `Hero@target.png`."""
    changelist = await changelists.readable_changelist(tx, changelist_id)
    assert changelist.branch_id is not None
    shelf_id = await queries.insert_shelf(
        tx,
        changelist.project_id,
        changelist.branch_id,
        actor.user_id,
        changelist_id,
        f"Conflicts: {changelist.description}",
    )
    rows = {}
    for path, side, sha256 in files:
        stem, dot, suffix = path.rpartition(".")
        named = f"{stem}@{side}{dot}{suffix}" if dot and "/" not in suffix else f"{path}@{side}"
        rows[path_key(named)] = ItemRow(path_key(named), named, ItemAction.ADD, None, sha256, None, None)
    await _put(tx, changelist.project_id, shelf_id, list(rows.values()))
    await _filled(tx, actor, shelf_id, EventKind.SHELF_CREATED)
    return shelf_id


async def _put(tx: Transaction, project_id: UUID, shelf_id: UUID, rows: Sequence[ItemRow]) -> None:
    await changelists.refuse_forbidden_paths(tx, project_id, rows)
    await queries.insert_items(tx, project_id, shelf_id, rows)


async def _refuse_missing_content(actor: Actor, project_id: UUID, rows: Sequence[ItemRow]) -> None:
    await _refuse_missing(actor, project_id, list({row.sha256.hex() for row in rows if row.sha256}))


async def _refuse_missing(actor: Actor, project_id: UUID, hashes: list[str]) -> None:
    """Looks at the disk, so it comes before the transaction that writes. There a trigger checks again."""
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.CONTRIBUTOR)
    missing = await objects.missing_objects(actor, project_id, hashes)
    if missing:
        raise MissingContent(
            f"The depot does not have {len(missing)} of the contents that this shelf refers to. "
            "Send them with PUT /projects/{id}/objects/{sha256}, then shelve again.",
            missing=missing,
        )


async def _refuse_foreign_changelist(tx: Transaction, project_id: UUID, changelist_id: UUID | None) -> None:
    if changelist_id is None:
        return
    changelist = await changelists.readable_changelist(tx, changelist_id)
    if changelist.project_id != project_id:
        raise NotFound(f"There is no changelist {changelist_id} in this project.")


async def _filled(tx: Transaction, actor: Actor, shelf_id: UUID, kind: EventKind) -> Shelf:
    """A shelf whose items have just been written."""
    locks = await queries.foreign_locks(tx, shelf_id)
    if locks:
        raise Locked(
            f"{locks[0]['path']} is locked by {locks[0]['holder']}. Ask for it to be released, or shelve without it.",
            locks=locks,
        )
    await queries.refer_to_content(tx, shelf_id)
    await queries.count_items(tx, shelf_id)
    shelf = await readable_shelf(tx, shelf_id)
    await _record(tx, actor, kind, shelf)
    return shelf


async def _record(tx: Transaction, actor: Actor, kind: EventKind, shelf: Shelf, **more: str) -> None:
    payload = {"shelf_id": str(shelf.id), "branch_id": str(shelf.branch_id), "items_count": shelf.items_count, **more}
    await events.record(tx, shelf.project_id, kind, actor.user_id, payload)


async def readable_shelf(tx: Transaction, shelf_id: UUID) -> Shelf:
    row = await queries.shelf(tx, shelf_id)
    if row is None:
        raise NotFound(f"There is no shelf {shelf_id} that you can see.")
    return Shelf.model_validate(row)


async def _locked_shelf(tx: Transaction, shelf_id: UUID) -> Shelf:
    """Locked against other writers until the transaction ends."""
    shelf = await readable_shelf(tx, shelf_id)
    await projects.writable_project(tx, shelf.project_id, ProjectRole.CONTRIBUTOR)
    if not await queries.lock_shelf(tx, shelf_id):
        raise Forbidden(f"This shelf is {shelf.owner}'s. Its owner changes it, and leads and above.")
    return await readable_shelf(tx, shelf_id)


async def get_shelf(actor: Actor, shelf_id: UUID) -> Shelf:
    async with actor.transaction() as tx:
        return await readable_shelf(tx, shelf_id)


async def list_shelves(
    actor: Actor, project_id: UUID, branch_id: UUID | None, owner_id: UUID | None, limit: int, cursor: str | None
) -> Page[Shelf]:
    """Newest first."""
    before = decode_uuid_cursor(cursor)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.shelves(tx, project_id, branch_id, owner_id, before, limit)
    items = [Shelf.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)


async def list_items(actor: Actor, shelf_id: UUID, limit: int, cursor: str | None) -> Page[ShelfItem]:
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await readable_shelf(tx, shelf_id)
        rows = await queries.items(tx, shelf_id, str(after[0]) if after else "", limit)
    items = [ShelfItem.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["path_key"]) if len(rows) == limit else None)


async def replace_items(actor: Actor, shelf_id: UUID, items: Sequence[Item]) -> Shelf:
    rows = changelists.item_rows(items)
    shelf = await get_shelf(actor, shelf_id)
    await _refuse_missing_content(actor, shelf.project_id, rows)
    async with actor.transaction() as tx:
        shelf = await _locked_shelf(tx, shelf_id)
        await changelists.refuse_unknown_sources(tx, shelf.project_id, rows)
        await queries.delete_items(tx, shelf_id)
        await _put(tx, shelf.project_id, shelf_id, rows)
        return await _filled(tx, actor, shelf_id, EventKind.SHELF_UPDATED)


async def update_shelf(actor: Actor, shelf_id: UUID, wanted: ShelfUpdate) -> Shelf:
    """Correct the description, or link the shelf to a changelist."""
    async with actor.transaction() as tx:
        shelf = await _locked_shelf(tx, shelf_id)
        description = shelf.description if wanted.description is None else wanted.description
        linked = "changelist_id" in wanted.model_fields_set
        changelist_id = wanted.changelist_id if linked else shelf.changelist_id
        await _refuse_foreign_changelist(tx, shelf.project_id, changelist_id)
        await queries.update_shelf(tx, shelf_id, description, changelist_id)
        await _record(tx, actor, EventKind.SHELF_UPDATED, shelf)
        return await readable_shelf(tx, shelf_id)


async def delete_shelf(actor: Actor, shelf_id: UUID) -> None:
    async with actor.transaction() as tx:
        shelf = await _locked_shelf(tx, shelf_id)
        await queries.delete_shelf(tx, shelf_id)
        await _record(tx, actor, EventKind.SHELF_DELETED, shelf)


async def unshelve(actor: Actor, shelf_id: UUID, wanted: Unshelve, idempotency_key: str | None) -> Unshelved:
    """Copies the items into an open changelist of the asker's own. The shelf stays; whose it is does not matter."""

    async def copy() -> Unshelved:
        shelf = await readable_shelf(tx, shelf_id)
        changelist = await changelists.open_changelist(tx, wanted.changelist_id)
        if changelist.project_id != shelf.project_id:
            raise NotFound(f"There is no shelf {shelf_id} in the changelist's project.")
        if not wanted.replace:
            await _refuse_replaced_items(tx, shelf_id, wanted.changelist_id)
        rows = await queries.item_rows(tx, shelf_id)
        count = await changelists.put_rows(tx, wanted.changelist_id, rows)
        await _record(tx, actor, EventKind.SHELF_UNSHELVED, shelf, changelist_id=str(wanted.changelist_id))
        return Unshelved(changelist_id=wanted.changelist_id, items_count=count.items_count)

    async with actor.transaction() as tx:
        request = f"unshelve {shelf_id} {wanted.model_dump_json()}"
        return await once(tx, actor.user_id, idempotency_key, request, Unshelved, copy)


async def _refuse_replaced_items(tx: Transaction, shelf_id: UUID, changelist_id: UUID) -> None:
    paths = await queries.paths_in_both(tx, shelf_id, changelist_id)
    if paths:
        raise Conflict(
            f"{paths[0]} is in the changelist already. Take such items out of it first, or send replace=true.",
            errors=[ProblemError(detail=path, pointer="/changelist_id") for path in paths],
        )
