"""If-Match: nobody changes what they have not seen (RFC 9110 section 13.1.1, RFC 6585 section 3)."""

from typing import Annotated

from fastapi import Header

from depot_api.problems import PreconditionRequired, StalePrecondition

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=200,
        description="The ETag that you read: 412 when it is not the state any more. `*` takes any state.",
    ),
]
# For a caller inside the service, who holds the state in the same transaction.
ANY = "*"


def require_match(if_match: str | None, etag: str) -> None:
    """For changes that overwrite. Raises PreconditionRequired or StalePrecondition. `etag` is without quotes."""
    if if_match is None:
        raise PreconditionRequired(
            f'Send If-Match: "{etag}", the ETag of the state that you have read, or If-Match: *.'
        )
    refuse_stale_match(if_match, etag)


def refuse_stale_match(if_match: str | None, etag: str) -> None:
    """For steps that check for themselves what they build on, as submit does: a sent ETag counts, none is fine."""
    if if_match not in (None, ANY) and f'"{etag}"' not in [tag.strip() for tag in str(if_match).split(",")]:
        raise StalePrecondition(f'You have the state {if_match}; it is "{etag}" now. Read it again first.')
