"""Rules of changelists, and submit: one transaction, all or nothing (invariants 4, 5, 6 and 11)."""

from collections import defaultdict
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from psycopg import errors
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from depot_api import events
from depot_api.blobstore.layout import StoredBlob
from depot_api.branches import service as branches
from depot_api.changelists import queries
from depot_api.changelists.models import (
    MAX_ITEMS_PER_CALL,
    Changelist,
    ChangelistCreate,
    ChangelistItem,
    ChangelistStatus,
    ChangelistUpdate,
    Item,
    ItemAction,
    ItemRow,
    ItemsCount,
    ItemValidation,
    StaleItem,
    Submitted,
    ValidationCounts,
)
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.identity.models import TokenScope
from depot_api.locks import service as locks
from depot_api.metrics import SUBMIT_CONFLICTS, SUBMITS
from depot_api.objects import service as objects
from depot_api.paths import broken_rule, path_key
from depot_api.permissions import service as permissions
from depot_api.permissions.models import PathAccess
from depot_api.preconditions import refuse_stale_match, require_match
from depot_api.problems import (
    ChangelistClosed,
    Conflict,
    EmptyChangelist,
    Forbidden,
    Invalid,
    InvalidPath,
    Locked,
    LockLost,
    LockRequired,
    MissingContent,
    NoTargetBranch,
    NotFound,
    PathForbidden,
    PathInUse,
    Problem,
    ProblemError,
    ProjectArchived,
    ReviewRequired,
    StaleBase,
    ValidationRequired,
)
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, decode_uuid_cursor, encode_cursor

# Answers name the offenders, but not all of a hundred thousand.
MAX_NAMED = 100
MAX_DESCRIPTION_CHARACTERS = 10_000
# What is integrated is there on its source.
NEW_PATHS = (ItemAction.ADD, ItemAction.MOVE)
FINISHED = (ChangelistStatus.SUBMITTED, ChangelistStatus.ABANDONED)


async def create_changelist(actor: Actor, wanted: ChangelistCreate, idempotency_key: str | None) -> Changelist:
    async with actor.transaction() as tx:
        request = "create changelist " + wanted.model_dump_json()
        return await once(tx, actor.user_id, idempotency_key, request, Changelist, lambda: _open_new(tx, actor, wanted))


async def _open_new(tx: Transaction, actor: Actor, wanted: ChangelistCreate) -> Changelist:
    await projects.writable_project(tx, wanted.project_id, ProjectRole.CONTRIBUTOR)
    if wanted.branch_id:
        await branches.branch_of_project(tx, wanted.project_id, wanted.branch_id)
    row = await queries.insert_changelist(tx, wanted.project_id, wanted.branch_id, actor.user_id, wanted.description)
    return Changelist.model_validate(row)


async def readable_changelist(tx: Transaction, changelist_id: UUID) -> Changelist:
    row = await queries.changelist(tx, changelist_id)
    if row is None:
        raise NotFound(f"There is no changelist {changelist_id} that you can see.")
    return Changelist.model_validate(row)


async def get_changelist(actor: Actor, changelist_id: UUID) -> Changelist:
    async with actor.transaction() as tx:
        return await readable_changelist(tx, changelist_id)


async def list_changelists(
    actor: Actor,
    project_id: UUID,
    branch_id: UUID | None,
    status: ChangelistStatus | None,
    author_id: UUID | None,
    number: int | None,
    limit: int,
    cursor: str | None,
) -> Page[Changelist]:
    """Newest first."""
    before = decode_uuid_cursor(cursor)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.changelists(tx, project_id, branch_id, status, author_id, number, before, limit)
    items = [Changelist.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)


async def branch_history(
    actor: Actor, branch_id: UUID, path: str | None, at: int | None, label: str | None, limit: int, cursor: str | None
) -> Page[Changelist]:
    """What was submitted to the branch, and to its ancestors up to where it began. Newest first."""
    before = decode_cursor(cursor, int)
    async with actor.transaction() as tx:
        branch = await branches.readable_branch(tx, branch_id)
        newest = await branches.resolve_point(tx, branch, at, label)
        key = path_key(path) if path is not None else None
        rows = await queries.branch_history(tx, branch_id, key, newest, int(before[0]) if before else newest + 1, limit)
    items = [Changelist.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["number"]) if len(items) == limit else None)


async def update_changelist(
    actor: Actor, changelist_id: UUID, wanted: ChangelistUpdate, if_match: str | None
) -> Changelist:
    """The author's, while it is open; a finished one's description can be corrected by an admin, which is audited."""
    async with actor.transaction() as tx:
        changelist = await readable_changelist(tx, changelist_id)
        if changelist.status in FINISHED and wanted.branch_id is None:
            require_match(if_match, str(changelist.revision))
        else:
            changelist = await open_changelist(tx, changelist_id)
            require_match(if_match, str(changelist.revision))
        if wanted.branch_id:
            await branches.branch_of_project(tx, changelist.project_id, wanted.branch_id)
        try:
            row = await queries.update_changelist(tx, changelist_id, wanted.branch_id, wanted.description)
        except errors.RestrictViolation:
            row = None
        if row is None:
            raise Forbidden("Only a studio admin corrects the description of a finished changelist.")
        updated = Changelist.model_validate(row)
        await _tell(tx, actor, EventKind.CHANGELIST_UPDATED, updated)
    return updated


async def _tell(tx: Transaction, actor: Actor, kind: EventKind, changelist: Changelist) -> None:
    await events.record(tx, changelist.project_id, kind, actor.user_id, {"changelist_id": str(changelist.id)})


async def abandon_changelist(actor: Actor, changelist_id: UUID, if_match: str | None) -> None:
    async with actor.transaction() as tx:
        changelist = await open_changelist(tx, changelist_id)
        require_match(if_match, str(changelist.revision))
        await queries.set_status(tx, changelist_id, ChangelistStatus.ABANDONED)
        await _tell(tx, actor, EventKind.CHANGELIST_ABANDONED, changelist)


async def open_changelist(tx: Transaction, changelist_id: UUID, *, even_of_merge: bool = False) -> Changelist:
    """Locked against other writers until the transaction ends. Raises when the asker cannot change it any more."""
    changelist = await readable_changelist(tx, changelist_id)
    await projects.writable_project(tx, changelist.project_id, ProjectRole.CONTRIBUTOR)
    row = await queries.lock_changelist(tx, changelist_id)
    if row is None:
        raise Forbidden("Only its author changes a changelist.")
    changelist = Changelist.model_validate(row)
    if changelist.status in FINISHED:
        raise ChangelistClosed(f"The changelist is {changelist.status} and never changes again. Open a new one.")
    if row["is_merge"] and not even_of_merge:
        raise Conflict(
            "The changelist is a merge's, which fills it and lands it. Resolve conflicts, or cancel the merge."
        )
    return changelist


async def put_under_review(tx: Transaction, changelist_id: UUID) -> None:
    await queries.set_status(tx, changelist_id, ChangelistStatus.PENDING_REVIEW)


async def put_items(actor: Actor, changelist_id: UUID, items: Sequence[Item]) -> ItemsCount:
    rows = item_rows(items)
    async with actor.transaction() as tx:
        return await put_rows(tx, changelist_id, rows)


async def put_rows(tx: Transaction, changelist_id: UUID, rows: Sequence[ItemRow]) -> ItemsCount:
    """Into an open changelist of the asker's own, in a transaction that others have begun."""
    changelist = await open_changelist(tx, changelist_id)
    await refuse_forbidden_paths(tx, changelist.project_id, rows)
    await refuse_unknown_sources(tx, changelist.project_id, rows)
    count = await queries.put_items(tx, changelist.project_id, changelist_id, rows)
    await _refuse_misspelt_paths(tx, changelist_id)
    return ItemsCount(items_count=count)


async def refuse_unknown_sources(tx: Transaction, project_id: UUID, rows: Sequence[ItemRow]) -> None:
    """Integrations whose source branch has no such version of the path: later merges would believe them."""
    integrated = [row for row in rows if row.action == ItemAction.INTEGRATE]
    if not integrated:
        return
    unknown = await queries.unknown_sources(tx, project_id, integrated, MAX_NAMED)
    if unknown:
        named = [
            ProblemError(detail=f"{row['path']!r} has no version {row['version']} on that branch", pointer="/items")
            for row in unknown
        ]
        raise Invalid(f"{named[0].detail}. Integrate what the source branch shows.", errors=named)


# For merges, which fill a changelist of their own and land it through their gate ------------------------------------


async def open_for_merge(tx: Transaction, actor: Actor, project_id: UUID, branch_id: UUID, description: str) -> UUID:
    row = await queries.insert_changelist(tx, project_id, branch_id, actor.user_id, description)
    return UUID(str(row["id"]))


async def stage_merge(tx: Transaction, changelist_id: UUID, rows: Sequence[ItemRow]) -> None:
    """These items and no others. What was approved of stays so where an item is the same."""
    changelist = await open_changelist(tx, changelist_id, even_of_merge=True)
    await refuse_forbidden_paths(tx, changelist.project_id, rows)
    await queries.keep_items(tx, changelist_id, [row.path_key for row in rows])
    for start in range(0, len(rows), MAX_ITEMS_PER_CALL):
        await queries.put_items(tx, changelist.project_id, changelist_id, rows[start : start + MAX_ITEMS_PER_CALL])


async def submit_merge(tx: Transaction, actor: Actor, changelist_id: UUID) -> Submitted:
    """As any submit, but that what is exclusive was locked where it was made."""
    return await _submit(tx, actor, changelist_id, None, of_merge=True)


async def abandon_merge(tx: Transaction, changelist_id: UUID) -> None:
    await open_changelist(tx, changelist_id, even_of_merge=True)
    await queries.keep_items(tx, changelist_id, [])
    await queries.set_status(tx, changelist_id, ChangelistStatus.ABANDONED)


def item_rows(items: Sequence[Item]) -> list[ItemRow]:
    """Raises InvalidPath with every broken rule, or PathInUse when two of the paths would be one file."""
    broken = [
        ProblemError(detail=f"{path!r} {rule}", pointer=f"/items/{index}/{field}")
        for index, item in enumerate(items)
        for field, path, is_new in (
            ("path", item.path, item.action in NEW_PATHS),
            ("moved_from", item.moved_from, False),
        )
        if path is not None and (rule := broken_rule(path, is_new=is_new))
    ]
    if broken:
        raise InvalidPath(f"{broken[0].detail}. Rename it, then send it again.", errors=broken[:MAX_NAMED])
    rows: dict[str, ItemRow] = {}
    for index, item in enumerate(items):
        key = path_key(item.path)
        if key in rows:
            raise PathInUse(
                f"{item.path!r} is in this request twice, or differs from {rows[key].path!r} only in case.",
                errors=[ProblemError(detail=item.path, pointer=f"/items/{index}/path")],
            )
        rows[key] = _item_row(item)
    return list(rows.values())


def _item_row(item: Item) -> ItemRow:
    return ItemRow(
        path_key=path_key(item.path),
        path=item.path,
        action=item.action,
        base_version=item.base_version,
        sha256=bytes.fromhex(item.sha256) if item.sha256 else None,
        moved_from=item.moved_from,
        moved_from_key=path_key(item.moved_from) if item.moved_from else None,
        source_branch_id=item.source_branch_id,
        source_version=item.source_version,
        lock_fencing_number=item.lock_fencing_number,
    )


async def refuse_forbidden_paths(tx: Transaction, project_id: UUID, rows: Sequence[ItemRow]) -> None:
    needed = [
        (row.path, row.path_key, PathAccess.DELETE if row.action == ItemAction.DELETE else PathAccess.WRITE)
        for row in rows
    ]
    needed += [
        (row.moved_from, row.moved_from_key, PathAccess.DELETE) for row in rows if row.moved_from and row.moved_from_key
    ]
    await permissions.refuse_forbidden(tx, project_id, needed)


async def refuse_hidden_items(tx: Transaction, changelist: Changelist) -> None:
    """For what takes all of its items: those that are hidden would be left out without a word. Raises PathForbidden."""
    if await queries.count_visible_items(tx, changelist.id) != changelist.items_count:
        raise PathForbidden(
            "The rules of the project keep some of the changelist's paths from you. A manager sets them."
        )


async def revert_items(actor: Actor, changelist_id: UUID, paths: Sequence[str]) -> ItemsCount:
    """Take items out again. A path that is not among them is no error: it is reverted already."""
    async with actor.transaction() as tx:
        await open_changelist(tx, changelist_id)
        count = await queries.remove_items(tx, changelist_id, [path_key(path) for path in paths])
    if count is None:
        raise _archived_meanwhile()
    return ItemsCount(items_count=count)


async def validate_items(actor: Actor, changelist_id: UUID, validations: Sequence[ItemValidation]) -> ValidationCounts:
    """What a pipeline found out about contents. Refused for content that the author has replaced meanwhile."""
    if actor.scope is not TokenScope.PIPELINE:
        raise Forbidden("Validations are written with an API token of the scope pipeline.")
    async with actor.transaction() as tx:
        changelist = await readable_changelist(tx, changelist_id)
        await projects.writable_project(tx, changelist.project_id, ProjectRole.CONTRIBUTOR)
        if changelist.author_id == actor.user_id:
            raise Forbidden("Nobody validates their own changelist. Run the pipeline with the token of another user.")
        if changelist.status in FINISHED:
            raise ChangelistClosed(f"The changelist is {changelist.status}: there is nothing to validate any more.")
        rows = {path_key(one.path): one for one in validations}
        found = await queries.validate_items(
            tx,
            changelist_id,
            [
                (
                    key,
                    bytes.fromhex(one.sha256) if one.sha256 else None,
                    one.status,
                    Jsonb(one.report) if one.report else None,
                )
                for key, one in rows.items()
            ],
        )
        if lost := [one.path for key, one in rows.items() if key not in found]:
            raise Conflict(
                f"{lost[0]!r} is not in the changelist with that content any more. Read the items, then try again.",
                errors=[ProblemError(detail=path, pointer="/items") for path in lost[:MAX_NAMED]],
            )
        counts = await queries.validation_counts(tx, changelist_id)
        payload = {"changelist_id": str(changelist_id), **counts}
        await events.record(tx, changelist.project_id, EventKind.CHANGELIST_VALIDATED, actor.user_id, payload)
    return ValidationCounts.model_validate(counts)


async def revert_changelist(
    actor: Actor, changelist_id: UUID, description: str | None, idempotency_key: str | None
) -> Changelist:
    """A new open changelist that undoes a submitted one. Raises StaleBase where a path has changed since."""

    async def create() -> Changelist:
        undone = await readable_changelist(tx, changelist_id)
        await projects.writable_project(tx, undone.project_id, ProjectRole.CONTRIBUTOR)
        if undone.number is None or undone.branch_id is None:
            raise Conflict("Only a submitted changelist can be reverted. Abandon an open one.")
        await refuse_hidden_items(tx, undone)
        touched = await queries.touched(tx, undone.branch_id, undone.number)
        if stale := [row for row in touched if row["head_changelist_no"] != undone.number]:
            raise StaleBase(
                f"{len(stale)} paths have changed since changelist {undone.number}. Revert those changes first.",
                stale=[
                    StaleItem.model_validate(row | {"base_version": row["after_version"]}).model_dump()
                    for row in stale[:MAX_NAMED]
                ],
            )
        text = f"Revert changelist {undone.number}: {undone.description}"[:MAX_DESCRIPTION_CHARACTERS]
        row = await queries.insert_changelist(
            tx, undone.project_id, undone.branch_id, actor.user_id, text if description is None else description
        )
        await queries.put_items(tx, undone.project_id, row["id"], [_inverse(path) for path in touched])
        return await readable_changelist(tx, row["id"])

    async with actor.transaction() as tx:
        request = f"revert changelist {changelist_id} {description!r}"
        return await once(tx, actor.user_id, idempotency_key, request, Changelist, create)


def _inverse(touched: DictRow) -> ItemRow:
    was, is_now = touched["before_version"], touched["head_version"]
    action = ItemAction.DELETE if was is None else ItemAction.ADD if is_now is None else ItemAction.EDIT
    return ItemRow(touched["path_key"], touched["path"], action, is_now, touched["before_sha256"], None, None)


async def list_items(actor: Actor, changelist_id: UUID, limit: int, cursor: str | None) -> Page[ChangelistItem]:
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await readable_changelist(tx, changelist_id)
        rows = await queries.items(tx, changelist_id, str(after[0]) if after else "", limit)
    items = [ChangelistItem.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["path_key"]) if len(rows) == limit else None)


async def submit(actor: Actor, changelist_id: UUID, idempotency_key: str | None, if_match: str | None) -> Submitted:
    """Raises a problem that names what is in the way; then nothing has changed."""
    await refuse_missing_content(actor, changelist_id)
    async with _submitting(actor) as tx:
        return await once(
            tx,
            actor.user_id,
            idempotency_key,
            f"submit changelist {changelist_id}",
            Submitted,
            lambda: _submit(tx, actor, changelist_id, if_match),
        )


async def submit_item(
    actor: Actor, wanted: ChangelistCreate, item: Item, idempotency_key: str | None, request: str
) -> Submitted:
    """A changelist of one item, made and submitted in one transaction: refused or cut off, it leaves nothing behind.

    The item's paths are an asset's, or have been checked. `request` is what the key stands for.
    """

    async def create_and_submit() -> Submitted:
        changelist = await _open_new(tx, actor, wanted)
        await put_rows(tx, changelist.id, [_item_row(item)])
        return await _submit(tx, actor, changelist.id, None)

    if item.sha256:
        async with actor.transaction() as tx:
            known = await objects.known_blobs(tx, wanted.project_id, [item.sha256])
        await _refuse_missing(actor, known, [item.sha256])
    async with _submitting(actor) as tx:
        return await once(tx, actor.user_id, idempotency_key, request, Submitted, create_and_submit)


@asynccontextmanager
async def _submitting(actor: Actor) -> AsyncIterator[Transaction]:
    """The one transaction of a submit; what the database alone noticed is worded."""
    try:
        async with actor.transaction(keeps_plans=True) as tx:
            yield tx
    except (StaleBase, Locked, LockLost, LockRequired):
        SUBMIT_CONFLICTS.inc()
        raise
    except errors.InsufficientPrivilege:
        raise PathForbidden("Permissions have changed: you may not write some of these paths any more.") from None
    except errors.UniqueViolation:
        raise Conflict("A path is both moved away and changed in this changelist. Keep one of the two items.") from None
    SUBMITS.inc()


async def refuse_missing_content(actor: Actor, changelist_id: UUID) -> None:
    """Looks at the disk, so it comes before the transaction that takes the branch's lock."""
    async with actor.transaction(keeps_plans=True) as tx:
        changelist = await readable_changelist(tx, changelist_id)
        if changelist.status is ChangelistStatus.SUBMITTED:
            return  # perhaps the same request again, which has its answer
        await projects.writable_project(tx, changelist.project_id, ProjectRole.CONTRIBUTOR)
        hashes = await queries.content_hashes(tx, changelist_id)
        known = await objects.known_blobs(tx, changelist.project_id, hashes)
    await _refuse_missing(actor, known, hashes)


async def _refuse_missing(actor: Actor, known: list[StoredBlob], hashes: list[str]) -> None:
    missing = await objects.not_intact(actor.depot, known, hashes)
    if missing:
        raise MissingContent(
            f"The depot does not have {len(missing)} of the contents that this changelist refers to. "
            "Send them with PUT /projects/{id}/objects/{sha256}, then submit again.",
            missing=missing,
        )


def _archived_meanwhile() -> ProjectArchived:
    return ProjectArchived("The project has just been archived. Nothing was changed.")


async def _submit(
    tx: Transaction, actor: Actor, changelist_id: UUID, if_match: str | None, *, of_merge: bool = False
) -> Submitted:
    changelist = await open_changelist(tx, changelist_id, even_of_merge=of_merge)
    refuse_stale_match(if_match, str(changelist.revision))
    if changelist.branch_id is None:
        raise NoTargetBranch("The changelist names no branch to submit to. Create it with a branch_id.")
    if changelist.items_count == 0:
        raise EmptyChangelist("The changelist has no items. Add some, or abandon it.")
    project = await projects.writable_project(tx, changelist.project_id, ProjectRole.CONTRIBUTOR)
    branch = await queries.lock_branch(tx, changelist.branch_id)
    if branch is None:
        raise _archived_meanwhile()
    if not project.my_role.covers(ProjectRole(branch["submit_role"])):
        raise Forbidden(f"Submitting to {branch['name']} takes the role {branch['submit_role']} or above.")
    await refuse_hidden_items(tx, changelist)
    await _refuse_stale(tx, changelist_id, changelist.branch_id)
    await _refuse_misspelt_paths(tx, changelist_id)
    changes = await queries.changed_paths(tx, changelist_id)
    await _refuse_files_in_the_way(tx, changelist.branch_id, changes)
    await _refuse_open_gates(tx, changelist_id, branch)
    number = await queries.next_number(tx, project.id)
    if number is None:
        raise _archived_meanwhile()
    await locks.refuse_submit(tx, project.id, changelist_id, of_merge=of_merge)
    removes = not all(row["appears"] for row in changes)
    async with tx.pipeline():  # nothing is decided any more, so no statement waits for the one before
        submitted_at = await queries.land(
            tx, changelist_id, project.id, changelist.branch_id, actor.user_id, number, removes=removes
        )
        await locks.release_submitted(tx, project.id, changelist_id)
        submitted = Submitted(
            id=changelist_id, number=number, submitted_at=submitted_at, items_count=changelist.items_count
        )
        payload = {**submitted.model_dump(mode="json"), "branch_id": str(changelist.branch_id)}
        await events.record(tx, project.id, EventKind.CHANGELIST_SUBMITTED, actor.user_id, payload)
    return submitted


async def _refuse_stale(tx: Transaction, changelist_id: UUID, branch_id: UUID) -> None:
    rows = await queries.stale_items(tx, changelist_id, branch_id)
    if rows:
        raise StaleBase(
            f"{len(rows)} paths are not at the version that you started from. Sync them, look at both, submit again.",
            stale=[StaleItem.model_validate(row).model_dump() for row in rows],
        )


async def _refuse_misspelt_paths(tx: Transaction, changelist_id: UUID) -> None:
    _refuse_collisions(
        await queries.misspelt_paths(tx, changelist_id),
        "differs only in case from {existing!r}. Use the spelling that is there.",
    )


async def _refuse_files_in_the_way(tx: Transaction, branch_id: UUID, changes: list[DictRow]) -> None:
    """A path cannot be a file and a directory at once: no disk could hold both."""
    gone = {row["path_key"] for row in changes if not row["appears"]}
    new = {row["path_key"]: row["path"] for row in changes if row["appears"]}
    in_the_way = await files_in_the_way(tx, branch_id, new, gone)
    directories = {parent: path for key, path in new.items() for parent in _parents(key)}
    within = [{"path": directories[key], "existing": new[key]} for key in directories.keys() & new.keys()]
    with_others = [
        {"path": new[key], "existing": path} for key, existing in in_the_way.items() for path in existing.values()
    ]
    _refuse_collisions(
        (within + with_others)[:MAX_NAMED],
        "and {existing!r} cannot both be: one is a file where the other needs a directory. Rename one.",
    )


async def files_in_the_way(
    tx: Transaction, branch_id: UUID, new: Iterable[str], gone: Container[str]
) -> dict[str, dict[str, str]]:
    """For each new path key: the living files, key and path, that are where it needs a directory, or below it."""
    below: dict[str, list[str]] = defaultdict(list)
    for key in new:
        for parent in _parents(key):
            below[parent].append(key)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in await queries.files_at(tx, branch_id, list(below)):
        for key in below[row["path_key"]] if row["path_key"] not in gone else ():
            found[key][row["path_key"]] = row["path"]
    for row in await queries.files_below(tx, branch_id, list(new)):
        if row["path_key"] not in gone:
            found[row["directory"]][row["path_key"]] = row["path"]
    return found


def _parents(path_key: str) -> list[str]:
    """`a/b/c` → `a`, `a/b`."""
    return [path_key[:place] for place, character in enumerate(path_key) if character == "/"]


def _refuse_collisions(rows: list[dict[str, str]], sentence: str) -> None:
    if not rows:
        return
    named = [
        ProblemError(detail=f"{row['path']!r} {sentence.format(existing=row['existing'])}", pointer="/items")
        for row in rows
    ]
    problem: Problem = PathInUse(named[0].detail, errors=named)
    raise problem


async def _refuse_open_gates(tx: Transaction, changelist_id: UUID, branch: DictRow) -> None:
    if not (branch["require_review"] or branch["require_validation"]):
        return
    gates = await queries.open_gates(tx, changelist_id, branch["approve_role"])
    if branch["require_review"] and gates["objections"]:
        raise ReviewRequired("A reviewer asks for changes. Make them, then ask for the review again.")
    if branch["require_review"] and gates["approvals"] < branch["required_approvals"]:
        raise ReviewRequired(
            f"{branch['name']} asks for {branch['required_approvals']} approvals by {branch['approve_role']} or above; "
            f"this changelist has {gates['approvals']}. Ask with POST /changelists/{{id}}/review-requests."
        )
    if branch["require_validation"] and gates["not_validated"]:
        raise ValidationRequired(
            f"{gates['not_validated']} items have not passed validation, which {branch['name']} asks for. "
            "GET /changelists/{id}/items shows the reports."
        )
