"""`depot-ops replica`: standbys of the depot's primary."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from pydantic import SecretStr
from typer.core import TyperGroup

from depot_api.epochs import FILE_NAME, EpochFile
from depot_ops import patroni_commands
from depot_ops.console import failed
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.standby import MAX_BEHIND_BYTES
from depot_ops.replicas import create as replicas
from depot_ops.replicas import failover, promotion
from depot_ops.replicas import rejoin as rejoining
from depot_ops.replicas.create import Place
from depot_ops.replicas.failover import Failover
from depot_ops.replicas.health import (
    LAG_THRESHOLD_SECONDS,
    Limits,
    ReplicaHealth,
    ReplicaStatus,
    check_replica,
)
from depot_ops.replicas.health import place_of as server_at
from depot_ops.replicas.loss import require_loss
from depot_ops.replicas.nodes import Node, ReplicaError
from depot_ops.replicas.single_primary import check_single_primary
from depot_ops.replicas.site import place_of
from depot_ops.replicas.streaming import connected
from depot_ops.replicas.synchronous import (
    CHECK,
    DEGRADE_AFTER_SECONDS,
    Commit,
    Policy,
    check_synchronous,
    recorded,
    switch,
    tend,
)
from depot_ops.reports.failovers import document_failover
from depot_ops.settings import FailoverProvider, FailoverSettings, ReplicaSettings, SettingsError, load

CONFIRMATIONS = 2
CONFIRMATION_SECONDS = 1.0


class ByProvider(TyperGroup):
    """These commands, or where Patroni does failovers those that go through it. Typer's types for these are private."""

    def list_commands(self, ctx: Any) -> list[str]:
        return _patronis().list_commands(ctx) if _is_patroni() else super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _patronis().get_command(ctx, cmd_name) if _is_patroni() else super().get_command(ctx, cmd_name)


def _is_patroni() -> bool:
    try:
        return load(ReplicaSettings).failover_provider is FailoverProvider.PATRONI
    except SettingsError as error:
        raise failed(error, Status.UNKNOWN) from None


def _patronis() -> TyperGroup:
    return typer.main.get_group(patroni_commands.app)


app = typer.Typer(help="Make, watch and switch to standbys of the primary.", no_args_is_help=True, cls=ByProvider)

Name = Annotated[str, typer.Argument(help="The node's name.")]
Url = Annotated[
    str, typer.Option("--primary", envvar="DEPOT_REPLICATION_URL", help="The primary as a superuser; may name several.")
]
Directory = Annotated[Path, typer.Option(envvar="REPLICA_DIR", help="Where nodes are kept.")]
Archive = Annotated[
    Path | None, typer.Option(envvar="REPLICA_ARCHIVE_DIR", help="The archive of the log to fall back to.")
]
EpochPath = Annotated[
    Path | None,
    typer.Option("--storage", envvar="ASSET_STORAGE_PATH", help="The blob store, where the service keeps the epoch."),
]


def _place(directory: Path, url: str, archive: Path | None = None) -> Place:
    kept = archive.absolute() if archive else None
    named = {"replica_dir": directory, "depot_replication_url": SecretStr(url), "replica_archive_dir": kept}
    try:
        place = place_of(load(FailoverSettings).model_copy(update=named))
    except (ReplicaError, SettingsError) as error:
        raise failed(error, Status.UNKNOWN) from None
    place.nodes.prepare()
    return place


@app.command()
def create(
    name: Name,
    url: Url,
    directory: Directory,
    archive: Archive = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of the standby; a free one by default.")] = None,
) -> None:
    """Make a standby, start it, and prove that it streams: 0 it does, 1 nothing was made."""
    try:
        made = replicas.create(_place(directory, url, archive), name, port)
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(made.model_dump_json(indent=2))


@app.command()
def rebuild(name: Name, url: Url, directory: Directory, archive: Archive = None) -> None:
    """Copy the primary anew into a standby that cannot follow any more: 0 it streams, 1 it does not."""
    try:
        made = replicas.rebuild(_place(directory, url, archive), name)
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(made.model_dump_json(indent=2))


@app.command()
def remove(name: Name, url: Url, directory: Directory) -> None:
    """Stop a standby, delete its data, and drop its slot and its role at the primary."""
    try:
        replicas.remove(_place(directory, url), name)
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(f"{name} is gone, and its slot with it")


@app.command("list")
def list_nodes(url: Url, directory: Directory) -> None:
    """Every node as one JSON line with its role now: 0 one takes writes, 1 none or several, 3 unknown."""
    place = _place(directory, url)
    try:
        for node in place.nodes.all():
            typer.echo(json.dumps(replicas.described(place, node)))
    except ReplicaError as error:
        raise failed(error, Status.UNKNOWN) from None
    single = check_single_primary(place)
    if single.status is not Status.HEALTHY:
        raise failed(ReplicaError(single.detail), single.status)


@app.command()
def check(
    replica: Annotated[
        str, typer.Argument(metavar="URL", envvar="DEPOT_REPLICA_URL", help="The standby, as a role with pg_monitor.")
    ],
    url: Annotated[
        str | None,
        typer.Option("--primary", envvar="DEPOT_REPLICATION_URL", help="Where heartbeats are written."),
    ] = None,
    lag_seconds: Annotated[
        float, typer.Option(min=0, envvar="REPLAY_LAG_THRESHOLD_SECONDS", help="More is lagging.")
    ] = LAG_THRESHOLD_SECONDS,
    lag_bytes: Annotated[
        int, typer.Option(min=0, envvar="REPLAY_LAG_THRESHOLD_BYTES", help="More is lagging.")
    ] = MAX_BEHIND_BYTES,
    log: Annotated[Path | None, typer.Option(envvar="LOGGER_PATH", help="The answer is appended here too.")] = None,
    promote_on_failure: Annotated[
        bool, typer.Option("--promote-on-failure", help="Promote it when the primary is lost; every gate applies.")
    ] = False,
    directory: Annotated[
        Path | None, typer.Option(envvar="REPLICA_DIR", help="Where nodes are kept, for --promote-on-failure.")
    ] = None,
    storage: EpochPath = None,
) -> None:
    """How a standby is, as one JSON line: 0 healthy, 1 lagging, 3 unknown, 4 disconnected.

    With --promote-on-failure a second line tells of the promotion, and 0 that the standby is the primary now.
    """
    if promote_on_failure and (url is None or directory is None):
        typer.echo("--promote-on-failure needs DEPOT_REPLICATION_URL and REPLICA_DIR.", err=True)
        raise typer.Exit(2)
    limits = Limits(lag_seconds=lag_seconds, lag_bytes=lag_bytes)
    health = check_replica(replica, url, limits)
    _tell(health.model_dump_json(), log)
    if promote_on_failure and url and directory and _stays_disconnected(health, replica, url, limits):
        try:
            place = _place(directory, url)
            require_loss(place)
            done = failover.promote(place, _node_at(place, replica).name, _epochs(storage), conclude=_documented)
        except (ReplicaError, psycopg.Error, OSError) as error:
            typer.secho(str(error), fg="red", err=True)
        else:
            _tell(done.model_dump_json(), log)
            raise typer.Exit(0)
    raise typer.Exit(health.status.exit_code)


def _stays_disconnected(health: ReplicaHealth, replica: str, url: str, limits: Limits) -> bool:
    """A restart of the primary is no loss: what is seen once is looked at again."""
    for _ in range(CONFIRMATIONS):
        if health.status is not ReplicaStatus.DISCONNECTED:
            return False
        time.sleep(CONFIRMATION_SECONDS)
        health = check_replica(replica, url, limits)
    return health.status is ReplicaStatus.DISCONNECTED


def _node_at(place: Place, replica: str) -> Node:
    """Which node the address is of. Raises ReplicaError when it is of none."""
    with connected(replica) as standby:
        row = standby.execute("SELECT current_setting('data_directory')").fetchone()
    for node in place.nodes.all():
        if row and node.data == Path(row[0]):
            return node
    raise ReplicaError(f"the standby at {server_at(replica)} is no node of {place.nodes.directory}: it is not promoted")


def _tell(line: str, log: Path | None) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if log is None:
        return
    try:
        with log.open("a") as file:
            file.write(line + "\n")
    except OSError as error:  # what was found out still counts
        typer.secho(f"nothing was appended to {log}: {error}", fg="red", err=True)


@app.command()
def switchover(name: Name, url: Url, directory: Directory, archive: Archive = None, storage: EpochPath = None) -> None:
    """Make a standby the primary without losing anything: 0 done, 1 not done, and the primary is what it was.

    One that was killed is taken up when it is said again: taken back, or ended where it had come to the promotion.
    """
    try:
        done = promotion.switchover(_place(directory, url, archive), name, _epochs(storage))
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(done.model_dump_json(indent=2))
    if done.rejoin_failed:
        raise failed(ReplicaError(done.rejoin_failed), Status.UNHEALTHY)


@app.command()
def promote(
    name: Name,
    url: Url,
    directory: Directory,
    archive: Archive = None,
    storage: EpochPath = None,
    max_loss_bytes: Annotated[
        int, typer.Option(min=0, help="Of the lost primary's log, without asking.")
    ] = failover.MAX_LOSS_BYTES,
    accept_data_loss: Annotated[bool, typer.Option("--accept-data-loss", help="Although a gate refuses.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept with the epoch.")] = "",
) -> None:
    """Make a standby the primary because the primary is lost: 0 done, 1 refused or failed.

    Documented in BACKUP_DIR/failovers, where that is set.
    """
    try:
        done = failover.promote(
            _place(directory, url, archive),
            name,
            _epochs(storage),
            accept_data_loss=accept_data_loss,
            reason=reason,
            max_loss_bytes=max_loss_bytes,
            conclude=_documented,
        )
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(done.model_dump_json(indent=2))


def _documented(place: Place, begun: Failover) -> Failover:
    """As the run of Dagster ends one."""
    settings = load(FailoverSettings)
    if settings.backup_dir is None:
        return failover.finish_without_document(place, begun)
    done, _, page = document_failover(place, begun, settings.backup_dir, settings.wal_archive_dir)
    typer.echo(f"documented in {page}", err=True)
    return done


@app.command()
def rejoin(name: Name, url: Url, directory: Directory, archive: Archive = None) -> None:
    """Make an old primary a standby of the new one, by rewinding it or copying anew: 0 it streams, 1 it does not."""
    try:
        done = rejoining.rejoin(_place(directory, url, archive), name)
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(done.model_dump_json(indent=2))


@app.command()
def synchronous(
    url: Url,
    directory: Directory,
    policy: Annotated[Policy | None, typer.Argument(help="What to change to; without, what it is is told.")] = None,
    commit: Annotated[
        Commit, typer.Option(help="What a standby has done with a commit before it is acknowledged.")
    ] = Commit.REMOTE_APPLY,
    degrade_after: Annotated[
        float, typer.Option(min=0, help="Seconds without a standby until writes go on alone, where they may.")
    ] = DEGRADE_AFTER_SECONDS,
) -> None:
    """Whether a commit waits for a standby, and what happens when it is lost: 0 as it should be, 1 not, 3 unknown.

    off: nothing waits. stop: writes wait until a standby confirms them. degrade: after a time they go on without one,
    which `depot-ops replica keep-synchronous` sees to, and so it does to the way back.
    """
    place = _place(directory, url)
    try:
        if policy is not None:
            switch(place.nodes, url, policy, commit, degrade_after)
        record = recorded(place.nodes)
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY if policy else Status.UNKNOWN) from None
    typer.echo(record.model_dump_json(indent=2))
    found = check_synchronous(place.nodes, place.url)
    if found.status is not Status.HEALTHY:
        raise failed(ReplicaError(found.detail), found.status)


@app.command("keep-synchronous")
def keep_synchronous(
    url: Url,
    directory: Directory,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, for cron; the exit code tells.")] = False,
) -> None:
    """Have commits wait for the standbys that there are, for ever, under a supervisor; a line for each change."""
    place = _place(directory, url)
    last = None
    while True:
        found = _tended(place)
        if found.detail != last:
            sys.stdout.write(found.model_dump_json() + "\n")
            sys.stdout.flush()
        if once:
            raise typer.Exit(found.status.exit_code)
        last = found.detail
        time.sleep(interval)


def _tended(place: Place) -> Finding:
    try:
        tend(place.nodes, place.url)
    except (ReplicaError, psycopg.Error, OSError) as error:
        return Finding(check=CHECK, status=Status.UNKNOWN, detail=str(error).strip())
    return check_synchronous(place.nodes, place.url)


@app.command()
def adopt(
    url: Url,
    directory: Directory,
    storage: Annotated[Path, typer.Option("--storage", envvar="ASSET_STORAGE_PATH", help="The blob store.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the epoch.")],
) -> None:
    """Have the service take a database that was restored from before the last promotion: 0 done, 1 not."""
    try:
        epoch = promotion.adopt(_place(directory, url), EpochFile(storage / FILE_NAME), reason)
    except (ReplicaError, psycopg.Error, OSError) as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(f"the cluster epoch is {epoch}")


def _epochs(storage: Path | None) -> EpochFile | None:
    return EpochFile(storage / FILE_NAME) if storage else None
