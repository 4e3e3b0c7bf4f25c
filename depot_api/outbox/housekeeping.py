"""What no request does, and one worker of a deployment every hour: storage use is noted, what nobody asks for goes."""

from datetime import timedelta

from depot_api.depot import Depot
from depot_api.outbox import queries

EVERY_SECONDS = 3600.0
# A retry after a long weekend still finds its answer.
KEEP_IDEMPOTENCY_KEYS = timedelta(days=7)


async def keep_house(depot: Depot) -> bool:
    """That there is no more to do. Doing it twice changes nothing."""
    async with depot.database.anonymous() as tx:
        await queries.take_storage_snapshots(tx)
        await queries.expire_idempotency_keys(tx, KEEP_IDEMPOTENCY_KEYS)
        await queries.forget_sign_ins(tx)
    return False
