"""A cluster that Patroni keeps, over the REST API of its members.

Nothing here stops, copies or promotes a server: Patroni is asked how they are, and asked to do it.
"""

import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from depot_ops.replicas.nodes import ReplicaError, only_at

ANSWER_SECONDS = 5.0
# Patroni answers when it has been done, or not within a round or two.
COMMAND_SECONDS = 90.0
POLL_SECONDS = 0.1
WORKERS = 8
# Before Patroni 4 it was "master".
PRIMARY_ROLES = {"primary", "master"}

Answer = TypeVar("Answer", bound=BaseModel)


class PatroniError(ReplicaError):
    """Patroni does not answer, or it refused; the message has its own words."""


class _Position(BaseModel):
    location: int | None = None
    replayed_location: int | None = None


class _Named(BaseModel):
    name: str


class Member(BaseModel):
    """What a member says of itself at this moment (`GET /patroni`)."""

    model_config = ConfigDict(frozen=True)

    patroni: _Named
    state: str
    role: str
    timeline: int | None = None
    replication_state: str | None = None
    postmaster_start_time: AwareDatetime | None = None
    xlog: _Position = _Position()

    @property
    def name(self) -> str:
        return self.patroni.name

    @property
    def is_primary(self) -> bool:
        """By its server's word, not by the consensus store's."""
        return self.state == "running" and self.role in PRIMARY_ROLES

    @property
    def streams(self) -> bool:
        return self.state == "running" and self.replication_state == "streaming"


class Listed(BaseModel):
    """What the consensus store knows of a member (`GET /cluster`), up to a round of Patroni's ago."""

    model_config = ConfigDict(frozen=True)

    name: str
    role: str
    state: str
    host: str | None = None
    port: int | None = None
    timeline: int | None = None
    lag: int | str | None = None


class _Cluster(BaseModel):
    members: list[Listed]


class _Configuration(BaseModel):
    synchronous_mode: bool | str = False


@dataclass(frozen=True, slots=True)
class View:
    """What was seen in one look at all members."""

    members: dict[str, Member]
    """By the address that answered."""
    silent: dict[str, str]
    """Addresses that did not answer, and why."""
    listed: dict[str, Listed]
    """By name, as those that answered have it from the consensus store."""

    @property
    def leader(self) -> Listed | None:
        """Who holds the lock."""
        return next((one for one in self.listed.values() if one.role in ("leader", "standby_leader")), None)

    def address_of(self, name: str) -> str:
        """Raises PatroniError."""
        for url, member in self.members.items():
            if member.name == name:
                return url
        known = ", ".join(sorted(member.name for member in self.members.values()))
        raise PatroniError(f"no member {name} answers at PATRONI_URLS; these do: {known or 'none'}")

    def server_of(self, name: str, url: str) -> str:
        """The address `url`, at this member's server only. Raises PatroniError."""
        one = self.listed.get(name)
        if one is None or one.host is None:
            raise PatroniError(f"Patroni does not say where the server of {name} listens")
        return only_at(url, one.host, one.port or 5432)


@dataclass(frozen=True, slots=True)
class Patroni:
    """The members as the settings name them. What changes anything is sent there and nowhere else."""

    urls: tuple[str, ...]
    credentials: tuple[str, str] | None = None
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def look(self) -> View:
        """Ask all at once. Raises PatroniError when nobody answers."""
        with ThreadPoolExecutor(WORKERS) as pool:
            told = dict(zip(self.urls, pool.map(self._own_word, self.urls), strict=True))
        members = {url: word for url, word in told.items() if isinstance(word, Member)}
        silent = {url: word for url, word in told.items() if isinstance(word, str)}
        if not members:
            reasons = "; ".join(f"{url}: {why}" for url, why in silent.items())
            raise PatroniError(f"no member of the Patroni cluster answers ({reasons}): does Patroni run?")
        cluster = self._first(list(members), "/cluster", _Cluster)
        return View(members, silent, {one.name: one for one in cluster.members})

    def is_synchronous(self) -> bool:
        """Whether Patroni has commits wait for a standby. Raises PatroniError."""
        mode = self._first(list(self.urls), "/config", _Configuration).synchronous_mode
        return str(mode).lower() not in {"false", "off"}  # or true, or quorum

    def switch_over(self, url: str, leader: str, candidate: str) -> None:
        """Returns when Patroni says that it is done. Raises PatroniError."""
        self._command(url, "/switchover", {"leader": leader, "candidate": candidate})

    def reinitialize(self, url: str) -> None:
        """Have the member at `url` copy the primary anew; returns when it has begun. Raises PatroniError."""
        self._command(url, "/reinitialize", {})

    def wait_for(self, url: str, condition: Callable[[Member], bool], seconds: float, otherwise: str) -> Member:
        """What the member says once `condition` holds. Raises PatroniError."""
        deadline = time.monotonic() + seconds
        while True:
            word = self._own_word(url)
            if isinstance(word, Member) and condition(word):
                return word
            if time.monotonic() > deadline:
                last = word if isinstance(word, str) else f"{word.name} is {word.role}, {word.state}"
                raise PatroniError(f"{otherwise} within {seconds:.0f} s ({last}): see Patroni's log")
            time.sleep(POLL_SECONDS)

    def _own_word(self, url: str) -> Member | str:
        try:
            return self._get(url, "/patroni", Member)
        except PatroniError as error:
            return str(error)

    def _first(self, urls: list[str], path: str, answer: type[Answer]) -> Answer:
        """From the first that answers."""
        for url in urls[:-1]:
            try:
                return self._get(url, path, answer)
            except PatroniError:  # another may answer; the last one's error is told
                continue
        return self._get(urls[-1], path, answer)

    def _get(self, url: str, path: str, answer: type[Answer]) -> Answer:
        try:
            with self._client(url, ANSWER_SECONDS) as http:
                return answer.model_validate_json(http.get(path).raise_for_status().content)
        except httpx.HTTPError as error:
            raise PatroniError(f"{type(error).__name__}: {error}") from error
        except ValidationError as error:
            raise PatroniError(f"{url}{path} does not answer as Patroni does: {error.error_count()} errors") from error

    def _command(self, url: str, path: str, body: dict[str, Any]) -> None:
        try:
            with self._client(url, COMMAND_SECONDS, self.credentials) as http:
                answer = http.post(path, json=body)
        except httpx.HTTPError as error:
            raise PatroniError(
                f"{url}{path} did not answer ({type(error).__name__}: {error}); it may be done all the same: look at"
                " `depot-ops replica list`"
            ) from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise PatroniError(
                f"Patroni at {url} does not let us in ({answer.text.strip()}): set PATRONI_RESTAPI_USERNAME and"
                " PATRONI_RESTAPI_PASSWORD, or PATRONI_CTL_CERTFILE, as patronictl has them"
            )
        if not answer.is_success:
            raise PatroniError(f"Patroni at {url} refused {path} with {answer.status_code}: {answer.text.strip()}")

    def _client(self, url: str, seconds: float, credentials: tuple[str, str] | None = None) -> httpx.Client:
        """Reading takes no credentials, and is sent none."""
        return httpx.Client(base_url=url, auth=credentials, timeout=seconds, verify=self.tls, trust_env=False)


class TlsFiles(BaseModel):
    """As patronictl takes them."""

    cacert: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises PatroniError."""
        try:
            context = ssl.create_default_context(cafile=self.cacert)
            if self.certfile is not None:
                context.load_cert_chain(self.certfile, self.keyfile)
        except OSError as error:  # ssl.SSLError is one
            raise PatroniError(f"PATRONI_CTL_CACERT, _CERTFILE or _KEYFILE cannot be used: {error}") from error
        return context


class Switchover(BaseModel):
    """What Patroni did when it was asked to."""

    model_config = ConfigDict(frozen=True)

    promoted: str
    demoted: str
    timeline: int | None
    epoch: int
    started_at: AwareDatetime
    duration_seconds: float = Field(description="until the new primary had its epoch")
