"""Rules of locks (invariant 9), and of the typemap that says which paths need one."""

from collections.abc import Sequence
from itertools import groupby
from uuid import UUID

from psycopg.rows import DictRow

from depot_api import events
from depot_api.branches import service as branches
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.identity.actor import Actor
from depot_api.locks import queries
from depot_api.locks.models import (
    HeldLock,
    Lock,
    LockItem,
    LockRequiredItem,
    LockScope,
    LostLock,
    NewestVersion,
    Typemap,
    TypemapRule,
)
from depot_api.paths import broken_rule, path_key
from depot_api.patterns import any_as_regex, matches
from depot_api.permissions import service as permissions
from depot_api.permissions.models import PathAccess
from depot_api.preconditions import refuse_stale_match, require_match
from depot_api.problems import (
    Forbidden,
    InvalidPath,
    Locked,
    LockLost,
    LockRequired,
    NotFound,
    PathInUse,
    ProblemError,
    StaleLockBase,
)
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.wire import Page, decode_cursor, encode_cursor

# Answers name the offenders, but not all of a hundred thousand.
MAX_NAMED = 100


async def acquire_locks(
    actor: Actor, project_id: UUID, branch_id: UUID, items: Sequence[LockItem], lease_seconds: int
) -> tuple[list[Lock], bool]:
    """All or none, in the order asked, and whether any of them is new: one's own live lock is renewed.

    Raises PathForbidden, Locked or StaleLockBase with everything that is in the way.
    """
    path_keys = _path_keys(items)
    paths, bases = [item.path for item in items], [item.base_version for item in items]
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.CONTRIBUTOR)
        if (await branches.readable_branch(tx, branch_id)).project_id != project_id:
            raise NotFound(f"There is no branch {branch_id} in this project.")
        await _refuse_unwritable(tx, project_id, paths)
        await queries.hold_off_submits(tx, project_id)
        granted = await queries.acquire(tx, project_id, path_keys, paths, bases, lease_seconds)
        if len(granted) < len(items):
            refuse_locked(await queries.foreign_locks_at(tx, project_id, path_keys))
        rules = await _rules(tx, project_id)
        project_wide = [_scope(rules, path) is LockScope.PROJECT for path in paths]
        _refuse_stale(await queries.stale_bases(tx, project_id, branch_id, path_keys, paths, bases, project_wide))
        by_key = {row["path_key"]: Lock.model_validate(row) for row in granted}
        locks = [by_key[key] for key in path_keys]
        is_new = any(row["is_new"] for row in granted)
        kind = EventKind.LOCK_ACQUIRED if is_new else EventKind.LOCK_RENEWED
        await _tell(tx, actor, kind, locks)
    return locks, is_new


async def _refuse_unwritable(tx: Transaction, project_id: UUID, paths: Sequence[str]) -> None:
    """Who may not change a path keeps nobody else from it."""
    await permissions.refuse_forbidden(tx, project_id, [(path, path_key(path), PathAccess.WRITE) for path in paths])


def _path_keys(items: Sequence[LockItem]) -> list[str]:
    """Raises InvalidPath, or PathInUse when two of the paths would be one file."""
    broken = [
        ProblemError(detail=f"{item.path!r} {rule}", pointer=f"/items/{index}/path")
        for index, item in enumerate(items)
        if (rule := broken_rule(item.path, is_new=item.base_version is None))
    ]
    if broken:
        raise InvalidPath(f"{broken[0].detail}. There can be no such path.", errors=broken[:MAX_NAMED])
    places: dict[str, int] = {}
    for index, item in enumerate(items):
        first = places.setdefault(path_key(item.path), index)
        if first != index:
            raise PathInUse(
                f"{item.path!r} is in this request twice, or differs from {items[first].path!r} only in case.",
                errors=[ProblemError(detail=item.path, pointer=f"/items/{index}/path")],
            )
    return list(places)


def refuse_locked(rows: Sequence[DictRow]) -> None:
    if not rows:
        return
    held = [HeldLock.model_validate(row) for row in rows]
    first = held[0]
    raise Locked(
        f"{first.path!r} is locked by {first.holder} since {first.acquired_at:%Y-%m-%d %H:%M} until "
        f"{first.expires_at:%Y-%m-%d %H:%M %Z}. Ask for it to be released, or a lead to break it.",
        errors=[ProblemError(detail=f"{one.path!r} is locked by {one.holder}") for one in held[:MAX_NAMED]],
        locks=[one.model_dump(mode="json") for one in held[:MAX_NAMED]],
    )


def _refuse_stale(rows: Sequence[DictRow]) -> None:
    if not rows:
        return
    stale = [NewestVersion.model_validate(row) for row in rows]
    named = [ProblemError(detail=_stale_sentence(one)) for one in stale[:MAX_NAMED]]
    raise StaleLockBase(
        f"{named[0].detail} Sync or integrate that first, then lock.",
        errors=named,
        newest=[one.model_dump(mode="json") for one in stale[:MAX_NAMED]],
    )


def _stale_sentence(stale: NewestVersion) -> str:
    yours = "no version" if stale.base_version is None else f"version {stale.base_version}"
    if stale.branch is None:
        return f"You have {yours} of {stale.path!r}, which was never on the branch."
    newest = "it was deleted" if stale.version is None else f"the newest is version {stale.version}"
    return (
        f"You have {yours} of {stale.path!r}; {newest} on branch {stale.branch} "
        f"by {stale.author} in changelist {stale.changelist_no}."
    )


async def readable_lock(tx: Transaction, lock_id: UUID) -> Lock:
    row = await queries.lock(tx, lock_id)
    if row is None:
        raise NotFound(f"There is no lock {lock_id} that you can see: it was released, broken or taken over.")
    return Lock.model_validate(row)


async def get_lock(actor: Actor, lock_id: UUID) -> Lock:
    async with actor.transaction() as tx:
        return await readable_lock(tx, lock_id)


async def list_locks(
    actor: Actor,
    project_id: UUID,
    path: str | None,
    prefix: str | None,
    holder: str | None,
    expired: bool | None,
    limit: int,
    cursor: str | None,
) -> Page[Lock]:
    """In path order. `expired` None asks for both."""
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        rows = await queries.locks(
            tx,
            project_id,
            None if path is None else path_key(path),
            None if prefix is None else path_key(prefix),
            holder,
            expired,
            str(after[0]) if after else "",
            limit,
        )
    items = [Lock.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(rows[-1]["path_key"]) if len(rows) == limit else None)


async def renew_lock(actor: Actor, lock_id: UUID, lease_seconds: int, if_match: str | None) -> Lock:
    """Raises LockLost for one whose lease has ended: the path may have changed since."""
    async with actor.transaction() as tx:
        lock, is_live = await _own_lock(tx, actor, lock_id)
        await _refuse_unwritable(tx, lock.project_id, [lock.path])
        require_match(if_match, lock.etag)
        if not is_live:
            raise LockLost(f"The lease of {lock.path!r} ended at {lock.expires_at:%Y-%m-%d %H:%M %Z}. Lock it again.")
        renewed = lock.model_copy(update={"expires_at": await queries.renew(tx, lock_id, lease_seconds)})
        await _tell(tx, actor, EventKind.LOCK_RENEWED, [renewed])
    return renewed


async def release_lock(actor: Actor, lock_id: UUID, if_match: str | None) -> None:
    async with actor.transaction() as tx:
        lock, _ = await _own_lock(tx, actor, lock_id)
        require_match(if_match, lock.etag)
        await queries.release(tx, lock_id)
        await _tell(tx, actor, EventKind.LOCK_RELEASED, [lock])


async def _own_lock(tx: Transaction, actor: Actor, lock_id: UUID) -> tuple[Lock, bool]:
    """And whether its lease still runs. Nobody else changes it until the transaction ends."""
    lock = await readable_lock(tx, lock_id)
    await projects.writable_project(tx, lock.project_id, ProjectRole.CONTRIBUTOR)
    if lock.holder_id != actor.user_id:
        raise Forbidden(f"{lock.path!r} is locked by {lock.holder}. Only a lead can break it, with a reason.")
    row = await queries.own_lock_for_update(tx, lock_id)
    if row is None:
        raise NotFound(f"Your lock on {lock.path!r} was submitted, broken or taken over a moment ago.")
    return Lock.model_validate(row), row["is_live"]


async def break_lock(actor: Actor, lock_id: UUID, reason: str, if_match: str | None) -> None:
    """Anybody's lock, by a lead and above; the reason is kept for good."""
    async with actor.transaction() as tx:
        lock = await readable_lock(tx, lock_id)
        await projects.writable_project(tx, lock.project_id, ProjectRole.LEAD)
        refuse_stale_match(if_match, lock.etag)
        if not await queries.break_lock(tx, lock_id, reason):
            raise NotFound(f"{lock.path!r} was released, broken or submitted meanwhile.")
        await _tell(tx, actor, EventKind.LOCK_BROKEN, [lock], reason=reason)


async def _tell(tx: Transaction, actor: Actor, kind: EventKind, locks: Sequence[Lock], **more: str) -> None:
    fields = {"id", "path", "holder_id", "fencing_number", "expires_at"}
    payload = {"locks": [lock.model_dump(mode="json", include=fields) for lock in locks], **more}
    await events.record(tx, locks[0].project_id, kind, actor.user_id, payload)


# What a submit has to respect ---------------------------------------------------------------------------------------


async def refuse_submit(tx: Transaction, project_id: UUID, changelist_id: UUID, *, of_merge: bool = False) -> None:
    """Raises Locked, LockLost or LockRequired. What a merge brings was locked where it was made.

    The submit must have taken the project's number before: while it has, no lock is granted or broken.
    """
    refuse_locked(await queries.foreign_locks(tx, changelist_id))
    if rows := await queries.lost_locks(tx, changelist_id):
        lost = [LostLock.model_validate(row) for row in rows[:MAX_NAMED]]
        now = f"{lost[0].holder} holds it now" if lost[0].holder else "its lease ended, or it was released or broken"
        raise LockLost(
            f"Lock {lost[0].lock_fencing_number} of {lost[0].path!r} is not yours any more: {now}. "
            "Lock the newest version again, then send the item with that lock's fencing number.",
            errors=[ProblemError(detail=f"{one.path!r} is not locked any more") for one in lost],
            lost=[one.model_dump(mode="json") for one in lost],
        )
    if not of_merge:
        await _refuse_unlocked(tx, project_id, changelist_id)


async def release_submitted(tx: Transaction, project_id: UUID, changelist_id: UUID) -> None:
    """The author's locks on the paths of a changelist that has landed. The event of the submit tells of it."""
    await queries.release_submitted(tx, project_id, changelist_id)


async def _refuse_unlocked(tx: Transaction, project_id: UUID, changelist_id: UUID) -> None:
    rules = await _rules(tx, project_id)
    if not any(rule.exclusive for rule in rules):
        return
    runs = [
        (any_as_regex([rule.pattern for rule in run]) or "", exclusive)
        for exclusive, run in groupby(reversed(rules), lambda rule: rule.exclusive)
    ]
    regexes, exclusive = zip(*runs, strict=True)
    paths = await queries.unlocked_exclusive_paths(tx, project_id, changelist_id, regexes, exclusive, MAX_NAMED)
    if paths:
        needed = [LockRequiredItem(path=path, pattern=_matching(rules, path).pattern) for path in paths]
        raise LockRequired(
            f"{needed[0].path!r} is exclusive by the typemap rule {needed[0].pattern!r}, and you hold no lock on it. "
            "Lock it with POST /locks, then submit again.",
            errors=[ProblemError(detail=f"{one.path!r} is exclusive by {one.pattern!r}") for one in needed],
            required=[one.model_dump(mode="json") for one in needed],
        )


# Typemap ------------------------------------------------------------------------------------------------------------

_NO_RULE = TypemapRule(pattern="**")


async def get_typemap(actor: Actor, project_id: UUID) -> Typemap:
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        return Typemap(rules=await _rules(tx, project_id))


async def set_typemap(actor: Actor, project_id: UUID, wanted: Typemap) -> Typemap:
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.LEAD)
        await queries.hold_off_submits_and_locks(tx, project_id)
        rows = [(rule.pattern, rule.exclusive, rule.mergeable, rule.asset_type, rule.scope) for rule in wanted.rules]
        await queries.replace_typemap_rules(tx, project_id, rows)
        await events.record(tx, project_id, EventKind.TYPEMAP_SET, actor.user_id, wanted.model_dump(mode="json"))
    return wanted


async def mergeable_paths(tx: Transaction, project_id: UUID, paths: Sequence[str]) -> set[str]:
    """Those whose content can be merged, as the typemap says."""
    rules = await _rules(tx, project_id)
    if not any(rule.mergeable for rule in rules):
        return set()
    return {path for path in paths if _matching(rules, path).mergeable}


async def _rules(tx: Transaction, project_id: UUID) -> list[TypemapRule]:
    return [TypemapRule.model_validate(row) for row in await queries.typemap_rules(tx, project_id)]


def _matching(rules: Sequence[TypemapRule], path: str) -> TypemapRule:
    """The last rule that matches."""
    return next((rule for rule in reversed(rules) if matches(rule.pattern, path)), _NO_RULE)


def _scope(rules: Sequence[TypemapRule], path: str) -> LockScope:
    return _matching(rules, path).scope
