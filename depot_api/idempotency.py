"""Idempotency-Key: the same request twice is the same result (IETF draft idempotency-key-header)."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Header
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from depot_api.database.pool import Transaction, fetch_one
from depot_api.problems import IdempotencyKeyReused

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Sent again with the same request within 7 days, it answers what the first one answered.",
    ),
]
Answer = TypeVar("Answer", bound=BaseModel)


async def once(
    tx: Transaction,
    user_id: UUID,
    key: str | None,
    request: str,
    answer: type[Answer],
    change: Callable[[], Awaitable[Answer]],
) -> Answer:
    """Run `change` in `tx` unless this user's key has been answered before; then replay that answer.

    The key commits or vanishes with the change. A second request that comes while the first runs waits for it in the
    database. `request` is what the key stands for. Raises IdempotencyKeyReused when it stood for something else.
    """
    if key is None:
        return await change()
    fingerprint = hashlib.sha256(request.encode("utf-8", "replace")).digest()
    if await _claim(tx, user_id, key, fingerprint):
        result = await change()
        await tx.execute(
            "UPDATE idempotency_keys SET response = %s WHERE user_id = %s AND key = %s",
            (Jsonb(result.model_dump(mode="json")), user_id, key),
        )
        return result
    row = await fetch_one(
        tx, "SELECT request_sha256, response FROM idempotency_keys WHERE user_id = %s AND key = %s", (user_id, key)
    )
    assert row is not None, "a claim only fails on a key that is there"
    if row["request_sha256"] != fingerprint:
        raise IdempotencyKeyReused("This Idempotency-Key was used for another request. Take a new one for each change.")
    # What is replayed may be on the primary only, when the wait for a standby was cut off: this commit waits for all.
    await tx.execute("SELECT pg_logical_emit_message(true, 'depot', 'replay')")
    return answer.model_validate(row["response"])


async def _claim(tx: Transaction, user_id: UUID, key: str, fingerprint: bytes) -> bool:
    cursor = await tx.execute(
        "INSERT INTO idempotency_keys (user_id, key, request_sha256) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (user_id, key, fingerprint),
    )
    return cursor.rowcount == 1
