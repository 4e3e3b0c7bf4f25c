"""The nodes as the environment names them, for what runs by itself."""

import logging
import re
import shlex
from functools import cache
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from depot_api.epochs import FILE_NAME, EpochFile
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.accounts import AccountError, ServerAccount, runnable_binaries, server_account
from depot_ops.postgres.binaries import Binaries, BinariesNotFound, find_binaries
from depot_ops.replicas.create import Place
from depot_ops.replicas.failover import Terms
from depot_ops.replicas.hosts import watched_hosts
from depot_ops.replicas.loss import ANSWER_SECONDS, Patience
from depot_ops.replicas.nodes import Nodes, ReplicaError
from depot_ops.replicas.patroni import Patroni, TlsFiles
from depot_ops.replicas.streaming import connected
from depot_ops.replicas.watch import known_nodes
from depot_ops.settings import FailoverProvider, FailoverSettings, PatroniSettings, ReplicaSettings, load

# A tick that lasts five seconds or more misses the daemon's next one; calling it takes some of that.
WATCH_SECONDS = 4.2
ASSISTED = "assisted_failover"
_SYSTEM_IDENTIFIER = "SELECT system_identifier FROM pg_control_system()"


def place_of(settings: FailoverSettings) -> Place:
    """Raises ReplicaError when something is not set."""
    if settings.replica_dir is None or settings.depot_replication_url is None:
        raise ReplicaError("REPLICA_DIR and DEPOT_REPLICATION_URL have to be set")
    try:
        account, binaries = _programs()
        command = tuple(shlex.split(settings.fence_command))
    except (AccountError, BinariesNotFound) as error:
        raise ReplicaError(str(error)) from error
    except ValueError as error:
        raise ReplicaError(f"FENCE_COMMAND cannot be split into words: {error}") from error
    return Place(
        nodes=Nodes(settings.replica_dir.absolute()),
        url=settings.depot_replication_url.get_secret_value(),
        binaries=binaries,
        account=account,
        archive=settings.replica_archive_dir,
        fence_command=command,
        fence_seconds=settings.fence_timeout_seconds,
    )


def patroni_of(settings: PatroniSettings) -> Patroni:
    """Raises ReplicaError when something is not set or cannot be used."""
    if not settings.rest_urls:
        raise ReplicaError("PATRONI_URLS has to be set where FAILOVER_PROVIDER is patroni")
    files = TlsFiles(
        cacert=settings.patroni_ctl_cacert,
        certfile=settings.patroni_ctl_certfile,
        keyfile=settings.patroni_ctl_keyfile,
    )
    username, password = settings.patroni_restapi_username, settings.patroni_restapi_password.get_secret_value()
    return Patroni(settings.rest_urls, (username, password) if username else None, files.context())


def member_names(settings: PatroniSettings) -> dict[str, str]:
    """What each member is shown as, by its address: the same whether it answers or not."""
    return {url: re.sub(r"[^a-z0-9]+", "_", url.partition("://")[2].lower()).strip("_") for url in settings.rest_urls}


def watched_names() -> list[str]:
    """The servers to watch, as they are shown. Raises SettingsError, and ReplicaError where a record is unreadable."""
    settings = load(ReplicaSettings)
    if settings.failover_provider is FailoverProvider.PATRONI:
        names = list(member_names(load(PatroniSettings)).values())
        if not names:  # backups and drills load all the same
            logging.getLogger("depot_ops").error("FAILOVER_PROVIDER is patroni without PATRONI_URLS: nobody is watched")
        return names
    if settings.replica_dir is not None or settings.depot_replication_url is None:
        return [node.name for node in known_nodes(settings.replica_dir)]
    return list(watched_hosts(settings.depot_replication_url.get_secret_value()))


@cache
def _programs() -> tuple[ServerAccount, Binaries]:
    account = server_account()
    return account, runnable_binaries(find_binaries(), account)


def patience_of(settings: FailoverSettings) -> Patience:
    """Between two ticks, five seconds apart, nobody looks: a tick lasts for most of that."""
    looks, interval = settings.failover_looks, settings.failover_interval_seconds
    return Patience(settings.failover_failures, looks, interval, watch_seconds=WATCH_SECONDS)


def terms_of(settings: FailoverSettings) -> Terms:
    return Terms(max_loss_bytes=settings.failover_max_loss_bytes, reason="assisted failover: the primary was lost")


def epochs_of(settings: FailoverSettings | PatroniSettings) -> EpochFile | None:
    path: Path | None = settings.asset_storage_path
    return EpochFile(path / FILE_NAME) if path else None


def check_assisted(settings: FailoverSettings) -> Finding:
    """Whether a lost primary would be replaced, where that is wanted. Raises ReplicaError."""
    if not settings.assisted_failover:
        return Finding(check=ASSISTED, status=Status.HEALTHY, detail="it is off: a lost primary is only told")
    if reason := why_not(settings, place_of(settings)):
        detail = f"it is wanted, and nothing would be promoted: {reason}"
        return Finding(check=ASSISTED, status=Status.UNHEALTHY, detail=detail)
    return Finding(check=ASSISTED, status=Status.HEALTHY, detail="it is on")


def why_not(settings: FailoverSettings, place: Place, depot: int | None = None) -> str | None:
    """Why nothing is promoted by itself here; None when it may be. `depot`: its system identifier, where it is known.

    Dagster's storage on the depot's own server is lost together with the primary, and with it the sensor.
    """
    if not settings.assisted_failover:
        return "ASSISTED_FAILOVER is off: it is told and nothing is promoted. Use `depot-ops replica promote`"
    if settings.dagster_pg_url is None:
        return "DAGSTER_PG_URL is not set: nobody can tell whether Dagster's storage is on the depot's server"
    url = settings.dagster_pg_url.get_secret_value().replace("postgresql+psycopg2://", "postgresql://", 1)
    storage = _system_identifier(url)
    if depot is None:
        found = (_system_identifier(node.conninfo(place.url)) for node in place.nodes.all())
        depot = next((one for one in found if one is not None), None)
    if storage is None or depot is None:
        which = "Dagster's storage" if storage is None else "no node of the depot"
        return f"{which} says which cluster it is: nobody can tell whether they are one server"
    if storage == depot:
        return (
            f"Dagster's storage is on the depot's own server (cluster {depot}), and would be lost with it: promotion"
            " stays off. Move the storage to a server of its own (DAGSTER_PG_URL)"
        )
    return None


def _system_identifier(url: str) -> int | None:
    """None when it does not answer."""
    try:
        with connected(make_conninfo(url), ANSWER_SECONDS) as connection:
            row = connection.execute(_SYSTEM_IDENTIFIER).fetchone()
    except psycopg.Error:
        return None
    return int(row[0]) if row else None
