"""Argon2id password hashes."""

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

MIN_PASSWORD_CHARACTERS = 12
MAX_PASSWORD_CHARACTERS = 1024  # longer input would only cost hashing time

_hasher = PasswordHash((Argon2Hasher(),))

# Checked when there is no such user, so that the answer takes as long as for a wrong password. It is the hash of no
# password: made up, with the hasher's parameters, since a real one would cost each process a tenth of a second.
NOBODY = f"$argon2id$v=19$m=65536,t=3,p=4${'bm9ib2R5' * 2 + 'bm9ibg'}${'bm9ib2R5' * 5 + 'bm8'}"


def hash_password(password: str) -> str:
    return _hasher.hash(password)


def password_matches(password: str, password_hash: str | None) -> bool:
    """Takes the same time whether or not there is a hash to check against."""
    matches = _hasher.verify(password, password_hash or NOBODY)
    return matches and password_hash is not None
