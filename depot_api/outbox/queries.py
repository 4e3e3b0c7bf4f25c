"""SQL of the outbox's readers, all through SECURITY DEFINER functions: they have no identity and serve every tenant."""

from datetime import timedelta
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one


async def events(tx: Transaction, consumer: str, limit: int) -> list[DictRow]:
    """Those that `consumer` has not done yet, oldest first."""
    return await fetch_all(
        tx,
        "SELECT xact_id::text AS xact_id, id, project_id, kind, payload FROM outbox_events(%s, %s)",
        (consumer, limit),
    )


async def advance(tx: Transaction, consumer: str, xact_id: str, event_id: int) -> None:
    await tx.execute("SELECT advance_outbox(%s, %s::text::xid8, %s)", (consumer, xact_id, event_id))


async def forget_sign_ins(tx: Transaction) -> None:
    """Failures so old that they slow nobody down."""
    await tx.execute("SELECT forget_sign_ins()")


async def take_storage_snapshots(tx: Transaction) -> None:
    await tx.execute("SELECT take_storage_snapshots()")


async def expire_idempotency_keys(tx: Transaction, older_than: timedelta) -> None:
    await tx.execute("SELECT expire_idempotency_keys(%s)", (older_than,))


async def project(tx: Transaction, project_id: UUID) -> DictRow | None:
    return await fetch_one(tx, "SELECT * FROM ref_project(%s)", (project_id,))


async def branches(tx: Transaction, project_id: UUID, branch_id: UUID | None = None) -> list[DictRow]:
    return await fetch_all(
        tx,
        "SELECT %(project)s AS project_id, * FROM ref_branches(%(project)s, %(branch)s)",
        {"project": project_id, "branch": branch_id},
    )


async def asset(tx: Transaction, project_id: UUID, asset_id: UUID) -> DictRow | None:
    return await fetch_one(
        tx,
        "SELECT %(project)s AS project_id, * FROM ref_asset(%(project)s, %(asset)s)",
        {"project": project_id, "asset": asset_id},
    )


async def merge(tx: Transaction, project_id: UUID, merge_id: UUID) -> DictRow | None:
    return await fetch_one(
        tx,
        "SELECT %(project)s AS project_id, * FROM ref_merge(%(project)s, %(merge)s)",
        {"project": project_id, "merge": merge_id},
    )


async def obliteration(tx: Transaction, project_id: UUID, obliteration_id: UUID) -> DictRow | None:
    return await fetch_one(
        tx,
        "SELECT %(project)s AS project_id, * FROM ref_obliteration(%(project)s, %(obliteration)s)",
        {"project": project_id, "obliteration": obliteration_id},
    )


async def versions(tx: Transaction, changelist_id: UUID, after_key: str, limit: int) -> list[DictRow]:
    return await fetch_all(tx, "SELECT * FROM ref_versions(%s, %s, %s)", (changelist_id, after_key, limit))
