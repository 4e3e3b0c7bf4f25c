"""Letting go at the place what retention lets go: planned over the place's own records, by the same rules and floors.

What is still here stays there too. Before anything goes, the newest backups there, which shall stand for it, are read
and hashed again. A record goes before what it speaks of, so that a killed run leaves nothing that looks like a backup;
the next one removes the rest.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from depot_ops.copies.copying import CopyError, sole_copier
from depot_ops.copies.holdings import Holdings, look
from depot_ops.copies.proofs import damage_of_base, damage_of_dump
from depot_ops.evidence import Status, worst
from depot_ops.places import Place, PlaceError
from depot_ops.postgres.base_record import (
    ARCHIVE_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    BaseRecordUnusable,
    base_directory,
    load_base_backup,
)
from depot_ops.postgres.drill_facts import read_drill_facts
from depot_ops.postgres.dump_record import RecordTooNew, RecordUnusable, load_record, record_path
from depot_ops.postgres.prune import LONG_AGO, Pruned, Retention, plan_what_was_read, write_down
from depot_ops.postgres.retention import (
    OF_THE_MINIMUM,
    Action,
    BaseElement,
    Decision,
    Dump,
    Kind,
    WalFile,
    plan_chains,
    plan_dumps,
    plan_wal,
)
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.names import WalKind, parse_lsn, parse_wal_name

JOURNAL_NAME = "retention-copy.jsonl"


def prune_copy(retention: Retention, place: Place, *, dry_run: bool = False) -> Pruned:
    """Plan, and unless `dry_run` delete what the plan lets go at the place. Safe to be killed, and to be run again.

    Raises CopyError; nothing is touched while a copy is running.
    """
    started_at = datetime.now(UTC)
    try:
        with sole_copier(retention.backup_dir), TemporaryDirectory(prefix="depot-copy-") as home:
            holdings = look(place, Path(home))
            decisions = tuple(_plan(holdings, retention))
            pruned = Pruned(dry_run=dry_run, started_at=started_at, finished_at=datetime.now(UTC), decisions=decisions)
            if pruned.deleted and not dry_run:
                write_down(retention.backup_dir / JOURNAL_NAME, pruned)
                for decision in pruned.deleted:
                    _delete(holdings, decision)
    except (PlaceError, OSError) as error:
        raise CopyError(f"not all was looked at or deleted at {place}: {error}. The next run does the rest") from error
    return pruned.model_copy(update={"finished_at": datetime.now(UTC)})


def _plan(holdings: Holdings, retention: Retention) -> Iterator[Decision]:
    holdings.fetch_dump_records()
    holdings.fetch_base_records()
    holdings.fetch_drills()
    for key, problem in holdings.damaged.items():
        raise CopyError(f"nothing was deleted, for {key} may stand for what would go: {problem}")
    yield from _plan_dumps(holdings, retention)
    yield from _remaining_dumps(holdings, retention)
    for system in holdings.systems():
        elements, chains = _plan_chains(holdings, retention, system)
        log = _plan_log(holdings, retention, system, elements, chains)
        for decision in (*chains, *_remaining_bases(holdings, retention, system), *log):
            yield decision.model_copy(update={"system_identifier": system})


def _is_of_the_minimum(decision: Decision) -> bool:
    """No more than that is read at each pass: places bill for it. The rest is a share each day, in at_rest."""
    return OF_THE_MINIMUM in decision.reason


def _plan_dumps(holdings: Holdings, retention: Retention) -> list[Decision]:
    def plan(dumps: list[Dump]) -> list[Decision]:
        decisions = plan_dumps(dumps, retention.dumps)
        return [_unless_here(decision, lambda name: (retention.backup_dir / name).exists()) for decision in decisions]

    _, decisions = plan_what_was_read(
        [_look_at_dump(holdings, path) for path in holdings.dumps()],
        plan,
        lambda name: damage_of_dump(holdings, holdings.backup_dir / name),
        _is_of_the_minimum,
    )
    return decisions


def _look_at_dump(holdings: Holdings, path: Path) -> Dump:
    size_bytes = holdings.size_of_dump(path) or 0
    try:
        record = load_record(path)
    except (RecordUnusable, RecordTooNew) as error:
        return Dump(path.name, "", LONG_AGO, size_bytes, Status.UNHEALTHY, str(error))
    problem = holdings.problem_of_dump(path)
    if problem is None and worst(record.validation) is not Status.HEALTHY:
        problem = "its record does not say that it passed its checks"
    status = Status.UNHEALTHY if problem else Status.HEALTHY
    return Dump(path.name, record.database, record.started_at, size_bytes, status, problem or "")


def _plan_chains(holdings: Holdings, retention: Retention, system: int) -> tuple[list[BaseElement], list[Decision]]:
    here, there = (base_directory(root, system) for root in (retention.backup_dir, holdings.backup_dir))

    def plan(elements: list[BaseElement]) -> list[Decision]:
        decisions = plan_chains(elements, retention.chains)
        return [_unless_here(decision, lambda label: (here / label).exists()) for decision in decisions]

    return plan_what_was_read(
        [_look_at_base(holdings, path) for path in holdings.bases(system)],
        plan,
        lambda label: damage_of_base(holdings, there / label),
        _is_of_the_minimum,
    )


def _look_at_base(holdings: Holdings, path: Path) -> BaseElement:
    size_bytes = _size_of_base(holdings, path)
    problem = holdings.problem_of_base(path) or ""
    status = Status.UNHEALTHY if problem else Status.HEALTHY
    try:
        record = load_base_backup(path).record
    except BaseRecordUnusable:
        return BaseElement(path.name, None, LONG_AGO, 0, size_bytes, status, problem)
    number = parse_lsn(record.start_lsn) // record.segment_size_bytes
    return BaseElement(path.name, record.parent, record.finished_at, number, size_bytes, status, problem)


def _size_of_base(holdings: Holdings, path: Path) -> int:
    return sum(holdings.size_of(path / name) or 0 for name in (ARCHIVE_NAME, MANIFEST_NAME, RECORD_NAME))


def _plan_log(
    holdings: Holdings, retention: Retention, system: int, elements: list[BaseElement], chains: list[Decision]
) -> list[Decision]:
    segment_bytes = _segment_bytes(holdings, system)
    if retention.archive_root is None or segment_bytes is None:
        return []  # nothing says what is still here, or where in the log a backup begins
    here, there = WalArchive(retention.archive_root, system), WalArchive(holdings.archive_root, system)
    files = [
        WalFile(name, name.segment_number(segment_bytes), holdings.size_of(there.file_path(name)) or 0)
        for name in holdings.log(system)
        if name.kind is not WalKind.HISTORY
    ]
    still_here = {file.name.name for file in files if here.file_path(file.name).exists()}
    # What is here too is no matter of ours: planned without it, the rest is in stretches again.
    gone = [file for file in files if file.name.name not in still_here]
    return plan_wal(gone, elements, chains, read_drill_facts(holdings.backup_dir, str(holdings.place)))


def _segment_bytes(holdings: Holdings, system: int) -> int | None:
    for path in holdings.bases(system):
        if holdings.problem_of_base(path) is None:
            return load_base_backup(path).record.segment_size_bytes
    return None


def _unless_here(decision: Decision, is_here: Callable[[str], bool]) -> Decision:
    if decision.action is Action.DELETE and any(map(is_here, decision.members)):
        return decision.model_copy(update={"action": Action.KEEP, "reason": "it is still in BACKUP_DIR"})
    return decision


def _remaining_dumps(holdings: Holdings, retention: Retention) -> Iterator[Decision]:
    """Dumps that killed runs left without a record, once they are not here any more and a newer one is whole."""
    newest = max((path.name for path in holdings.dumps() if not holdings.problem_of_dump(path)), default="")
    for path in sorted(holdings.backup_dir / name for name in holdings.dump_names()):
        is_here = (retention.backup_dir / path.name).exists()
        if holdings.size_of(record_path(path)) is None and path.name < newest and not is_here:
            yield _remainder(Kind.DUMP, path.name, holdings.size_of_dump(path) or 0)


def _remaining_bases(holdings: Holdings, retention: Retention, system: int) -> Iterator[Decision]:
    newest = max((path.name for path in holdings.bases(system) if not holdings.problem_of_base(path)), default="")
    there = base_directory(holdings.backup_dir, system)
    for path in sorted(there / label for label in holdings.base_labels(system)):
        is_here = (base_directory(retention.backup_dir, system) / path.name).exists()
        if holdings.size_of(path / RECORD_NAME) is None and path.name < newest and not is_here:
            yield _remainder(Kind.BASE_CHAIN, path.name, _size_of_base(holdings, path))


def _remainder(kind: Kind, name: str, size_bytes: int) -> Decision:
    reason = "a killed run left it without its record, and a newer one is whole"
    return Decision(kind=kind, name=name, action=Action.DELETE, reason=reason, size_bytes=size_bytes, members=(name,))


def _delete(holdings: Holdings, decision: Decision) -> None:
    for path in _files(holdings, decision):
        if holdings.size_of(path) is not None:
            holdings.place.delete(holdings.key_of(path))


def _files(holdings: Holdings, decision: Decision) -> Iterator[Path]:
    """What a decision is about, in the order in which it goes."""
    if decision.kind is Kind.DUMP:
        dump = holdings.backup_dir / decision.name
        yield from (record_path(dump), *holdings.files_of(dump))
        return
    assert decision.system_identifier is not None
    if decision.kind is Kind.BASE_CHAIN:
        # From the newest on: what is left when this is killed is a whole chain, only shorter.
        for label in reversed(decision.members):
            path = base_directory(holdings.backup_dir, decision.system_identifier) / label
            yield from (path / name for name in (RECORD_NAME, MANIFEST_NAME, ARCHIVE_NAME))
        return
    # The oldest first: what is left has no gap.
    archive = WalArchive(holdings.archive_root, decision.system_identifier)
    for name in filter(None, map(parse_wal_name, decision.members)):
        yield from (archive.record_path(name), archive.file_path(name))
