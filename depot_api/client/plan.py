"""Pure decisions: what a submit has to say, and what a sync has to do. No files and no network."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from depot_api.client.models import Action, Item, Version


def plan_submit(local: Mapping[str, str], base: Mapping[str, Version], *, delete_missing: bool) -> list[Item]:
    """The changes that lead from `base` to `local` (path → SHA-256), ordered by path."""
    items = []
    for path, sha256 in local.items():
        if path not in base:
            items.append(Item(Action.ADD, path, None, sha256))
        elif base[path].sha256 != sha256:
            items.append(Item(Action.EDIT, path, base[path].version, sha256))
    if delete_missing:
        items += [Item(Action.DELETE, path, had.version) for path, had in base.items() if path not in local]
    return sorted(items, key=lambda item: item.path)


def with_moves(items: Sequence[Item], base: Mapping[str, Version], moved: Mapping[str, str]) -> list[Item]:
    """The same changes, where a deletion and an addition are one move if `moved` (path → where from) says so.

    Or if they have the same content, and no other addition or deletion has it: which went where is not guessed.
    """
    added = {item.path: item for item in items if item.action is Action.ADD}
    deleted = {item.path: item for item in items if item.action is Action.DELETE}
    origins = {path: origin for path, origin in moved.items() if path in added and origin in deleted}
    arrived = _by_content((path, item.sha256) for path, item in added.items() if path not in origins)
    left = _by_content((path, base[path].sha256) for path in deleted.keys() - origins.values())
    for sha256, paths in arrived.items():
        if len(paths) == len(left[sha256]) == 1:
            origins[paths[0]] = left[sha256][0]
    moves = [
        Item(Action.MOVE, path, deleted[origin].base_version, added[path].sha256, moved_from=origin)
        for path, origin in origins.items()
    ]
    gone = origins.keys() | origins.values()
    return sorted([*moves, *(item for item in items if item.path not in gone)], key=lambda item: item.path)


def _by_content(paths: Iterable[tuple[str, str | None]]) -> defaultdict[str | None, list[str]]:
    found: defaultdict[str | None, list[str]] = defaultdict(list)
    for path, sha256 in paths:
        found[sha256].append(path)
    return found


class ConflictReason(StrEnum):
    BOTH_CHANGED = "changed here and in the depot"
    CHANGED_AND_DELETED = "changed here, deleted in the depot"
    DELETED_AND_CHANGED = "deleted here, changed in the depot"
    IN_THE_WAY = "a file that did not come from the depot is in the way"
    CHANGED_MEANWHILE = "changed while the sync was running"
    OTHER_BASE = "shelved from another version than the workspace has"


@dataclass(frozen=True, slots=True)
class Conflict:
    path: str
    reason: ConflictReason


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Each path of the workspace and of the depot is in at most one of these."""

    fetch: list[str] = field(default_factory=list)  # write the depot's content
    remove: list[str] = field(default_factory=list)  # delete the local file
    adopt: list[str] = field(default_factory=list)  # the right content lies there already
    forget: list[str] = field(default_factory=list)  # gone on both sides
    kept: list[str] = field(default_factory=list)  # changed here only: stays for the next submit
    conflicts: list[Conflict] = field(default_factory=list)


def plan_sync(
    target: Mapping[str, Version], have: Mapping[str, Version], local: Mapping[str, str], *, force: bool
) -> SyncPlan:
    """What turns `local` (path → SHA-256) into `target`, `have` being what the last sync or submit left.

    Without `force` no content is overwritten or deleted that the depot did not put there itself.
    """
    plan = SyncPlan()
    for path in sorted(target.keys() | have.keys()):
        wanted, had, lies = target.get(path), have.get(path), local.get(path)
        if wanted is None:
            _plan_removal(plan, path, had, lies, force=force)
        elif lies == wanted.sha256:
            plan.adopt.append(path)
        elif force or lies == (had.sha256 if had else None):
            plan.fetch.append(path)
        elif had == wanted:
            plan.kept.append(path)
        else:
            plan.conflicts.append(Conflict(path, _why(had, lies)))
    return plan


def _plan_removal(plan: SyncPlan, path: str, had: Version | None, lies: str | None, *, force: bool) -> None:
    if lies is None:
        plan.forget.append(path)
    elif force or (had is not None and lies == had.sha256):
        plan.remove.append(path)
    else:
        plan.conflicts.append(Conflict(path, ConflictReason.CHANGED_AND_DELETED))


def _why(had: Version | None, lies: str | None) -> ConflictReason:
    if lies is None:
        return ConflictReason.DELETED_AND_CHANGED
    return ConflictReason.BOTH_CHANGED if had else ConflictReason.IN_THE_WAY
