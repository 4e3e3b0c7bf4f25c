"""`depot-ops replica` where FAILOVER_PROVIDER is patroni: the same questions, and Patroni does what is asked."""

import json
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from depot_api.epochs import FILE_NAME, EpochFile
from depot_ops.console import failed
from depot_ops.evidence import Status
from depot_ops.replicas import patroni_watch as watching
from depot_ops.replicas.health import Limits, ReplicaHealth, ReplicaStatus, check_replica
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.replicas.patroni import Listed, Patroni, View
from depot_ops.replicas.site import epochs_of, patroni_of
from depot_ops.settings import PatroniSettings, SettingsError, load

TOLD = (ReplicaError, psycopg.Error, OSError)
INSTEAD = {
    "create": "start Patroni with deploy/patroni/patroni.yml on the new host: it copies the primary and streams",
    "remove": "stop Patroni on its host: the other members forget it, and its slot goes, when its ttl has passed",
    "promote": "Patroni promotes by itself once it has a quorum. Where it does not, its log says why; a person who"
    " knows what would be lost uses `patronictl failover`",
    "rejoin": "Patroni rewinds an old primary by itself when it is started; `depot-ops replica rebuild` copies anew",
    "synchronous": "use `patronictl edit-config -s synchronous_mode=on`; the check synchronous_replication heeds it",
    "keep-synchronous": "Patroni keeps its synchronous_mode by itself",
}

app = typer.Typer(help="Watch and switch over a cluster that Patroni keeps.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The member's name in Patroni.")]
Url = Annotated[
    str,
    typer.Option("--primary", envvar="DEPOT_REPLICATION_URL", help="The primary as a superuser; names every server."),
]


def _patroni() -> Patroni:
    try:
        return patroni_of(load(PatroniSettings))
    except (ReplicaError, SettingsError) as error:
        raise failed(error, Status.UNKNOWN) from None


@app.command("list")
def list_members(url: Url) -> None:
    """Every member as one JSON line with its role now: 0 one takes writes, 1 none or several, 3 unknown."""
    patroni = _patroni()
    try:
        view = patroni.look()
    except ReplicaError as error:
        raise failed(error, Status.UNKNOWN) from None
    for address in patroni.urls:
        typer.echo(json.dumps(_described(view, address)))
    single = watching.check_single_leader(patroni, url, epochs_of(load(PatroniSettings)))
    if single.status is not Status.HEALTHY:
        raise failed(ReplicaError(single.detail), single.status)


def _described(view: View, address: str) -> dict[str, str | int | None]:
    member = view.members.get(address)
    if member is None:
        return {"rest": address, "role": f"does not answer: {view.silent[address]}"}
    listed = view.listed.get(member.name) or Listed(name=member.name, role=member.role, state=member.state)
    return {
        "name": member.name,
        "rest": address,
        "host": listed.host,
        "port": listed.port,
        "role": "primary" if member.is_primary else "standby",
        "state": member.replication_state or member.state,
        "timeline": member.timeline,
        "lag_bytes": None if member.is_primary else listed.lag,
    }


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="The member's name in Patroni, or the address of a standby.")],
    url: Url,
    lag_seconds: Annotated[
        float | None, typer.Option(min=0, help="More is lagging; REPLAY_LAG_THRESHOLD_SECONDS by default.")
    ] = None,
    lag_bytes: Annotated[
        int | None, typer.Option(min=0, help="More is lagging; REPLAY_LAG_THRESHOLD_BYTES by default.")
    ] = None,
    log: Annotated[Path | None, typer.Option(envvar="LOGGER_PATH", help="The answer is appended here too.")] = None,
) -> None:
    """How a standby is, as one JSON line: 0 healthy, 1 lagging, 3 unknown, 4 disconnected."""
    settings = load(PatroniSettings)
    limits = Limits(
        settings.replay_lag_threshold_seconds if lag_seconds is None else lag_seconds,
        settings.replay_lag_threshold_bytes if lag_bytes is None else lag_bytes,
    )
    health = check_replica(name, url, limits) if _is_address(name) else _health_of(name, url, limits)
    if health is None:
        raise failed(ReplicaError(f"{name} is the primary: it has no lag"), Status.UNHEALTHY)
    line = health.model_dump_json()
    typer.echo(line)
    if log is not None:
        with log.open("a") as file:
            file.write(line + "\n")
    raise typer.Exit(health.status.exit_code)


def _is_address(name: str) -> bool:
    return "://" in name or "=" in name


def _health_of(name: str, url: str, limits: Limits) -> ReplicaHealth | None:
    patroni = _patroni()
    try:
        view = patroni.look()
        return watching.health_of(view, view.address_of(name), url, limits)
    except ReplicaError as error:
        return ReplicaHealth(replica=name, status=ReplicaStatus.UNKNOWN, reason=str(error))


@app.command()
def switchover(name: Name, url: Url) -> None:
    """Have Patroni make a standby the primary: 0 done and its epoch begun, 1 not."""
    try:
        done = watching.switch_over(_patroni(), name, url)
    except TOLD as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(done.model_dump_json(indent=2))


@app.command()
def rebuild(name: Name) -> None:
    """Have Patroni copy the primary anew into a standby that cannot follow: 0 it streams, 1 it does not."""
    try:
        watching.rebuild(_patroni(), name)
    except TOLD as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(f"{name} was copied anew and streams")


@app.command()
def adopt(
    url: Url,
    storage: Annotated[Path, typer.Option("--storage", envvar="ASSET_STORAGE_PATH", help="The blob store.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the epoch.")],
) -> None:
    """Have the service take the primary that there is, although its epoch is not the last: 0 done, 1 not."""
    try:
        epoch = watching.adopt(_patroni(), url, EpochFile(storage / FILE_NAME), reason)
    except TOLD as error:
        raise failed(error, Status.UNHEALTHY) from None
    typer.echo(f"the cluster epoch is {epoch}")


def _refuse(context: typer.Context) -> None:
    assert context.info_name is not None
    raise failed(
        ReplicaError(f"Patroni does that here (FAILOVER_PROVIDER): {INSTEAD[context.info_name]}"), Status.UNHEALTHY
    )


for _name, _instead in INSTEAD.items():
    app.command(
        _name,
        help=f"Not here: {_instead}.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(_refuse)
