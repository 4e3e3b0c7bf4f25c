"""Argon2id password hashes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

MIN_PASSWORD_CHARACTERS = 12
MAX_PASSWORD_CHARACTERS = 1024  # longer input would only cost hashing time

# Each hash takes 64 MiB and a core's time; threads of their own, so that content does not wait for those who sign in.
_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="passwords")

Given = ParamSpec("Given")
Result = TypeVar("Result")

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


async def in_thread(function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """Run one of the above while other requests go on."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(function, *args, **kwargs))
