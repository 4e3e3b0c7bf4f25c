"""The plan of a merge: what it would change on the target, and what it has to ask. Reads only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from depot_api.changelists import service as changelists
from depot_api.changelists.models import ItemAction, ItemRow
from depot_api.database.pool import Transaction
from depot_api.merges import queries
from depot_api.merges.bases import Landed, MergeHistory, Point, joined
from depot_api.merges.decide import (
    MOVES,
    ConflictKind,
    Decision,
    Side,
    Version,
    conflict_kind,
    content,
    decide,
    disputed,
    move_kind,
)

Heads = Mapping[str, Version]


class _Heads(NamedTuple):
    """What lives at the paths that the source has touched, by key."""

    base: Heads
    source: Heads
    target: Heads


class _File(NamedTuple):
    """A file that a side has moved, and where each side has it."""

    base: Version
    source: Side
    target: Side


class Change(NamedTuple):
    """Something only the source did. `moved_from` is the version on the target that leaves its path."""

    source: Side
    target: Side
    moved_from: Side = None


class Clash(NamedTuple):
    """What a person has to choose. Source and target are where the file is now, which a move has changed."""

    kind: ConflictKind
    base: Side
    source: Side
    target: Side
    # In the way of a path that the source adds: files of the target that cannot be beside it.
    in_the_way: tuple[Version, ...] = ()
    moved_from: Side = None

    @property
    def named(self) -> Version:
        """The version whose path names the conflict: where the file is, or was before it was moved."""
        version = self.base if self.kind in MOVES else self.source or self.target
        assert version is not None
        return version


@dataclass(slots=True)
class Plan:
    """Both by path key."""

    changes: dict[str, Change] = field(default_factory=dict)
    conflicts: dict[str, Clash] = field(default_factory=dict)
    same_count: int = 0


async def make_plan(tx: Transaction, project_id: UUID, source: Point, target: Point) -> Plan:
    history = await _history(tx, project_id)
    bases = history.common_points(history.known(source), history.known(target))
    keys: set[str] = set()
    for base in bases:
        keys |= await queries.touched(tx, source, base)
    base_heads = await _Reader(tx, history).base_heads(bases, keys)
    target_heads = await _target_heads(tx, bases, base_heads, target, keys)
    heads = _Heads(base_heads, await queries.heads(tx, source, keys), target_heads)
    moved = await _moved_files(tx, project_id, source, target, heads)
    elsewhere = {side.key for file in moved.values() for side in file if side}
    plan = Plan()
    for key in sorted(keys):
        if key in moved:
            _settle_move(plan, moved[key])
        elif key not in elsewhere:
            _settle(plan, key, heads.base.get(key), heads.source.get(key), heads.target.get(key))
    await _drop_known(tx, project_id, plan)
    await _find_collisions(tx, plan, target)
    return plan


async def _target_heads(
    tx: Transaction, bases: Sequence[Point], base_heads: Heads, target: Point, keys: set[str]
) -> Heads:
    """Where the target has touched nothing since, it shows what the base does: most paths, and half the lookups."""
    if len(bases) > 1:
        return await queries.heads(tx, target, keys)
    touched = keys & await queries.touched(tx, target, bases[0])
    untouched = {key: head for key, head in base_heads.items() if key not in touched}
    return untouched | await queries.heads(tx, target, touched)


async def _history(tx: Transaction, project_id: UUID) -> MergeHistory:
    parents = {
        row["id"]: Point(row["parent_id"], row["parent_at"]) if row["parent_id"] else None
        for row in await queries.forks(tx, project_id)
    }
    landed = [
        Landed(Point(row["source_branch_id"], row["source_at"]), Point(row["target_branch_id"], row["landed_no"]))
        for row in await queries.landed(tx, project_id)
    ]
    return MergeHistory(parents, landed)


class _Reader:
    """Heads at the base of a merge, which after a criss-cross is itself the merge of several points."""

    def __init__(self, tx: Transaction, history: MergeHistory) -> None:
        self._tx = tx
        self._history = history

    async def base_heads(self, bases: Sequence[Point], keys: Iterable[str]) -> dict[str, Version]:
        first, *others = bases
        heads, known = await queries.heads(self._tx, first, keys), self._history.known(first)
        for point in others:
            their_known = self._history.known(point)
            theirs = await queries.heads(self._tx, point, keys)
            differing = [key for key in keys if content(heads.get(key)) != content(theirs.get(key))]
            if differing:
                older = self._history.common_points(known, their_known)
                oldest = await self.base_heads(older, differing)
                for key in differing:
                    _set(heads, key, _joined(oldest.get(key), heads.get(key), theirs.get(key)))
            known = joined(known, their_known)
        return heads


def _joined(base: Side, ours: Side, theirs: Side) -> Side:
    match decide(base, theirs, ours):
        case Decision.TAKE:
            return theirs
        case Decision.CONFLICT:
            version = ours or theirs
            assert version is not None
            return disputed(version)
        case _:
            return ours


def _set(heads: dict[str, Version], key: str, side: Side) -> None:
    if side is None:
        heads.pop(key, None)
    else:
        heads[key] = side


def _settle(plan: Plan, key: str, base: Side, source: Side, target: Side) -> None:
    decision = decide(base, source, target)
    if decision is Decision.TAKE:
        plan.changes[key] = Change(source, target)
    elif decision is Decision.CONFLICT:
        plan.conflicts[key] = Clash(conflict_kind(base, source, target), base, source, target)
    elif decision is Decision.SAME:
        plan.same_count += 1


async def _moved_files(
    tx: Transaction, project_id: UUID, source: Point, target: Point, heads: _Heads
) -> dict[str, _File]:
    """Files of the base that a side has at another path now, by their path in the base.

    Only where that path was free: one that the base had, or that both sides have for different files, is a question of
    its own, and the file that was moved there is gone from where it was.
    """
    source_went = await queries.moved_to(tx, project_id, source, heads.base.keys() - heads.source.keys())
    target_went = await queries.moved_to(tx, project_id, target, heads.base.keys() - heads.target.keys())
    untouched = {moved.key for moved in target_went.values()} - heads.source.keys()
    at_source = heads.source.keys() | (await queries.heads(tx, source, untouched)).keys()
    found = {}
    for key in source_went.keys() | target_went.keys():
        ours, theirs = target_went.get(key), source_went.get(key)
        together = ours and theirs and ours.key == theirs.key
        if theirs and (theirs.key in heads.base or (theirs.key in heads.target and not together)):
            theirs = None
        if ours and (ours.key in heads.base or (ours.key in at_source and not together)):
            ours = None
        if ours or theirs:
            found[key] = _File(heads.base[key], theirs or heads.source.get(key), ours or heads.target.get(key))
    return found


def _settle_move(plan: Plan, file: _File) -> None:
    base, source, target = file
    if source and target and source.key == target.key:
        _settle(plan, source.key, *file)
    elif source and source.key == base.key and content(source) == content(base):
        return
    elif source and target and target.key == base.key and content(target) == content(base):
        plan.changes[source.key] = Change(source, None, moved_from=target)
    else:
        plan.conflicts[base.key] = Clash(move_kind(*file), *file)


async def _drop_known(tx: Transaction, project_id: UUID, plan: Plan) -> None:
    """Single versions that people have integrated themselves: then there is a newer base than that of the branches."""
    edited = (ConflictKind.BOTH_EDITED, ConflictKind.BOTH_ADDED)
    asked = [key for key, clash in plan.conflicts.items() if clash.kind in edited]
    for key, versions in (await queries.integrated_ancestry(tx, project_id, asked)).items():
        clash = plan.conflicts[key]
        assert clash.source and clash.target
        ours, theirs = (_ancestry(side.number, versions) for side in (clash.target, clash.source))
        common = ours & theirs
        newest = [one for one in common if not any(one in _ancestry(two, versions) for two in common - {one})]
        if len(newest) != 1:
            continue
        base = clash.source._replace(number=newest[0], sha256=versions[newest[0]].sha256)
        if decide(base, clash.source, clash.target) is not Decision.CONFLICT:
            del plan.conflicts[key]
            _settle(plan, key, base, clash.source, clash.target)


def _ancestry(number: int, versions: Mapping[int, queries.Lineage]) -> set[int]:
    """The version itself, and all that it was made from."""
    found: set[int] = set()
    waiting = [number]
    while waiting:
        one = waiting.pop()
        if one in versions and one not in found:
            found.add(one)
            waiting += [parent for parent in versions[one].parents if parent is not None]
    return found


async def _find_collisions(tx: Transaction, plan: Plan, target: Point) -> None:
    """A path cannot be a file on one side and a directory on the other."""
    new = {key: change for key, change in plan.changes.items() if change.source and not change.target}
    gone = {key for key, change in plan.changes.items() if change.source is None}
    gone |= {change.moved_from.key for change in new.values() if change.moved_from}
    for key, in_the_way in (await changelists.files_in_the_way(tx, target.branch_id, new, gone)).items():
        versions = await queries.heads(tx, target, in_the_way)
        change = plan.changes.pop(key)
        plan.conflicts[key] = Clash(
            ConflictKind.PATH_COLLISION,
            None,
            change.source,
            next(iter(versions.values())),
            tuple(versions.values()),
            change.moved_from,
        )


# What lands ----------------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """What was chosen for a conflict. A hash where the content is neither side's."""

    takes_source: bool
    sha256: bytes | None = None


def items(plan: Plan, source_branch_id: UUID, choices: Mapping[str, Choice]) -> list[ItemRow]:
    """Of the changes, and of the conflicts that have been decided."""
    rows = [_item(change, source_branch_id) for change in plan.changes.values()]
    for key, clash in plan.conflicts.items():
        choice = choices.get(key)
        if choice and choice.takes_source and not _keeps_target(clash, choice.sha256):
            rows += _resolved(clash, choice.sha256, source_branch_id)
    return list({row.path_key: row for row in rows}.values())


def _keeps_target(clash: Clash, sha256: bytes | None) -> bool:
    """The target's own content, where the target has it: that is a choice for the target."""
    moves_or_replaces = clash.kind in (ConflictKind.MOVE_EDIT, ConflictKind.PATH_COLLISION)
    return clash.target is not None and sha256 == clash.target.sha256 and not moves_or_replaces


def _resolved(clash: Clash, sha256: bytes | None, source_branch_id: UUID) -> list[ItemRow]:
    """The source's view of the file, or content of its own where the side that moved it has it now."""
    kind, source, target = clash.kind, clash.source, clash.target
    if kind is ConflictKind.PATH_COLLISION:
        taken = _item(Change(source, None, clash.moved_from), source_branch_id, sha256)
        return [*(_deletion(version) for version in clash.in_the_way), taken]
    if kind in (ConflictKind.MOVE_EDIT, ConflictKind.BOTH_MOVED) and (sha256 is None or kind is ConflictKind.MOVE_EDIT):
        return [_item(Change(source, None, moved_from=target), source_branch_id, sha256)]
    if kind in (ConflictKind.EDIT_MOVE, ConflictKind.BOTH_MOVED):
        assert target is not None
        if sha256 is not None:
            return [_edit(target, sha256)]
        return [_deletion(target), _item(Change(source, None), source_branch_id)]
    if source is None and sha256 is not None:
        assert target is not None
        return [_edit(target, sha256)]
    return [_item(Change(source, target), source_branch_id, sha256)]


def _item(change: Change, source_branch_id: UUID, sha256: bytes | None = None) -> ItemRow:
    source, target, moved_from = change
    if source is None:
        assert target is not None
        return _deletion(target)
    chosen = sha256 or source.sha256
    if moved_from:
        origin = (moved_from.path, moved_from.key)
        return ItemRow(source.key, source.path, ItemAction.MOVE, moved_from.number, chosen, *origin)
    return ItemRow(
        source.key,
        source.path,
        ItemAction.INTEGRATE,
        target.number if target else None,
        chosen,
        None,
        None,
        source_branch_id,
        source.number,
    )


def _deletion(target: Version) -> ItemRow:
    return ItemRow(target.key, target.path, ItemAction.DELETE, target.number, None, None, None)


def _edit(target: Version, sha256: bytes) -> ItemRow:
    return ItemRow(target.key, target.path, ItemAction.EDIT, target.number, sha256, None, None)
