"""Argon2id password hashes."""

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

MIN_PASSWORD_CHARACTERS = 12
MAX_PASSWORD_CHARACTERS = 1024  # longer input would only cost hashing time

_hasher = PasswordHash((Argon2Hasher(),))

# Checked when there is no such user, so that the answer takes as long as for a wrong password.
_NOBODY = _hasher.hash("nobody has this password")


def hash_password(password: str) -> str:
    return _hasher.hash(password)


def password_matches(password: str, password_hash: str | None) -> bool:
    """Takes the same time whether or not there is a hash to check against."""
    matches = _hasher.verify(password, password_hash or _NOBODY)
    return matches and password_hash is not None
