"""SQL of reviews and comments."""

from collections.abc import Sequence
from uuid import UUID

from psycopg.rows import DictRow

from depot_api.database.pool import Transaction, fetch_all, fetch_one
from depot_api.paths import path_key

_REVIEW = """
    SELECT r.id, r.project_id, r.changelist_id, r.reviewer_id, u.username AS reviewer, r.verdict, r.comment,
           r.created_at, r.decided_at
    FROM reviews r JOIN users u ON u.id = r.reviewer_id
"""
_COMMENT = """
    SELECT c.id, c.changelist_id, c.author_id, u.username AS author, c.path, c.body, c.created_at
    FROM review_comments c JOIN users u ON u.id = c.author_id
"""


async def reviewers(tx: Transaction, project_id: UUID, usernames: Sequence[str]) -> list[DictRow]:
    """Those of the names who may review in the project: {id, username}"""
    return await fetch_all(
        tx,
        """SELECT u.id, u.username FROM users u
           LEFT JOIN project_members m ON m.user_id = u.id AND m.project_id = %s
           WHERE lower(u.username) = ANY (%s) AND u.is_active AND (m.role >= 'reviewer' OR u.studio_role = 'admin')""",
        (project_id, [name.lower() for name in usernames]),
    )


async def ask(tx: Transaction, project_id: UUID, changelist_id: UUID, reviewer_ids: Sequence[UUID]) -> None:
    """Whoever has been asked before is not asked twice."""
    await tx.execute(
        """INSERT INTO reviews (project_id, changelist_id, reviewer_id) SELECT %s, %s, unnest(%s::uuid[])
           ON CONFLICT (changelist_id, reviewer_id) DO NOTHING""",
        (project_id, changelist_id, list(reviewer_ids)),
    )


async def hold_for_verdict(tx: Transaction, changelist_id: UUID) -> None:
    """Nobody changes the changelist until the transaction ends."""
    await tx.execute("SELECT hold_for_verdict(%s)", (changelist_id,))


async def decide(
    tx: Transaction, project_id: UUID, changelist_id: UUID, reviewer_id: UUID, verdict: str, comment: str
) -> DictRow | None:
    await tx.execute(
        """INSERT INTO reviews (project_id, changelist_id, reviewer_id, verdict, comment, decided_at)
           VALUES (%(project)s, %(changelist)s, %(reviewer)s, %(verdict)s::review_verdict, %(comment)s,
                   CASE WHEN %(verdict)s::review_verdict = 'pending' THEN NULL ELSE now() END)
           ON CONFLICT (changelist_id, reviewer_id) DO UPDATE SET verdict = excluded.verdict,
               comment = excluded.comment, decided_at = excluded.decided_at""",
        {
            "project": project_id,
            "changelist": changelist_id,
            "reviewer": reviewer_id,
            "verdict": verdict,
            "comment": comment,
        },
    )
    return await fetch_one(
        tx, _REVIEW + "WHERE r.changelist_id = %s AND r.reviewer_id = %s", (changelist_id, reviewer_id)
    )


async def reviews(
    tx: Transaction, project_id: UUID | None, changelist_id: UUID | None, before: UUID | None, limit: int
) -> list[DictRow]:
    return await fetch_all(
        tx,
        _REVIEW
        + """WHERE (%(project)s::uuid IS NULL OR r.project_id = %(project)s)
               AND (%(changelist)s::uuid IS NULL OR r.changelist_id = %(changelist)s)
               AND (%(before)s::uuid IS NULL OR r.id < %(before)s)
             ORDER BY r.id DESC LIMIT %(limit)s""",
        {"project": project_id, "changelist": changelist_id, "before": before, "limit": limit},
    )


async def pending(tx: Transaction, reviewer_id: UUID, after: UUID, limit: int) -> list[DictRow]:
    """Asked of this reviewer and still open, oldest first."""
    return await fetch_all(
        tx,
        _REVIEW
        + """JOIN changelists c ON c.id = r.changelist_id AND c.status = 'pending_review'
             WHERE r.reviewer_id = %s AND r.verdict = 'pending' AND r.id > %s ORDER BY r.id LIMIT %s""",
        (reviewer_id, after, limit),
    )


async def insert_comment(
    tx: Transaction, project_id: UUID, changelist_id: UUID, author_id: UUID, path: str | None, body: str
) -> DictRow | None:
    row = await fetch_one(
        tx,
        """INSERT INTO review_comments (project_id, changelist_id, author_id, path, path_key, body)
           VALUES (%s, %s, %s, %s, %s, %s) RETURNING id""",
        (project_id, changelist_id, author_id, path, path_key(path) if path is not None else None, body),
    )
    assert row is not None
    return await fetch_one(tx, _COMMENT + "WHERE c.id = %s", (row["id"],))


async def comments(tx: Transaction, changelist_id: UUID, after: UUID, limit: int) -> list[DictRow]:
    return await fetch_all(
        tx, _COMMENT + "WHERE c.changelist_id = %s AND c.id > %s ORDER BY c.id LIMIT %s", (changelist_id, after, limit)
    )
