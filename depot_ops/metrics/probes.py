"""What is looked at for metrics, and how often: the same functions that the checks and the report call."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from depot_ops.blobs import run as blobs
from depot_ops.drills.objectives import OF_WHAT_LIES_HERE, Objective, check_objective
from depot_ops.evidence import Finding, Status
from depot_ops.health import check_service
from depot_ops.launch import LaunchError
from depot_ops.metrics.dagster_checks import CHECK as DAGSTER_CHECKS
from depot_ops.metrics.dagster_checks import latest_checks
from depot_ops.metrics.seen import Seen
from depot_ops.postgres.accounts import AccountError, runnable_binaries, server_account
from depot_ops.postgres.base_age import check_age
from depot_ops.postgres.base_backup import check_chain
from depot_ops.postgres.base_record import BaseRecordUnusable, find_base_backups, oldest_needed_segment
from depot_ops.postgres.binaries import BinariesNotFound, find_binaries
from depot_ops.postgres.dump_record import find_backups, glance
from depot_ops.postgres.standby import check_standby
from depot_ops.postgres.wal.archive import ArchiveError, open_archive
from depot_ops.postgres.wal.inventory import check_continuity, check_intact
from depot_ops.postgres.wal.progress import archive_of, check_backlog, check_freshness, check_spool
from depot_ops.replicas.create import Place
from depot_ops.replicas.health import Limits
from depot_ops.replicas.hosts import check_single_host, watch_hosts, watched_hosts
from depot_ops.replicas.nodes import Nodes, ReplicaError
from depot_ops.replicas.patroni_watch import check_single_leader, watch_members
from depot_ops.replicas.single_primary import check_single_primary
from depot_ops.replicas.site import epochs_of, member_names, patroni_of
from depot_ops.replicas.watch import known_nodes, watch
from depot_ops.reports.nightly import check_backup_age
from depot_ops.settings import (
    BaseBackupAgeSettings,
    FailoverProvider,
    MetricsSettings,
    ObjectiveSettings,
    PatroniSettings,
    load,
)

HALF_A_MINUTE, FIVE_MINUTES, QUARTER_OF_AN_HOUR = 30.0, 300.0, 900.0
# What a disk or a server that is gone leads to; anything else is a defect, and logged.
NOT_THERE = (OSError, ArchiveError, BaseRecordUnusable, ReplicaError, AccountError, BinariesNotFound, LaunchError)

log = structlog.get_logger("depot_ops")


@dataclass(frozen=True, slots=True)
class Probe:
    """One question, and how long its answer counts."""

    name: str
    ask: Callable[[], Iterable[Seen]]
    period_seconds: float


class Watcher:
    """Keeps the newest answer to every question, and asks again what has become old."""

    def __init__(self, probes: list[Probe]) -> None:
        self._probes = probes
        self._asked_at: dict[str, float] = {}
        self._seen: dict[str, list[Seen]] = {}

    def refresh(self) -> None:
        """A question that cannot be asked is a finding that is unknown; the others are asked all the same."""
        for probe in self._probes:
            if self._is_due(probe):
                self._seen[probe.name] = _ask(probe)
                self._asked_at[probe.name] = time.monotonic()

    def _is_due(self, probe: Probe) -> bool:
        """What could not be found out is asked again soon."""
        if probe.name not in self._asked_at:
            return True
        is_unknown = any(one.finding.status is Status.UNKNOWN for one in self._seen[probe.name])
        period_seconds = min(probe.period_seconds, HALF_A_MINUTE) if is_unknown else probe.period_seconds
        return time.monotonic() - self._asked_at[probe.name] >= period_seconds

    def seen(self) -> list[Seen]:
        return [one for probe in self._probes for one in self._seen.get(probe.name, [])]


def _ask(probe: Probe) -> list[Seen]:
    try:
        return list(probe.ask())
    except NOT_THERE as error:
        return [_unknown(probe, error)]
    except Exception as error:
        # Whatever it is: an exporter that ended would silence every other alarm.
        log.exception("probe failed", check=probe.name)
        return [_unknown(probe, error)]


def _unknown(probe: Probe, error: Exception) -> Seen:
    return Seen(Finding(check=probe.name, status=Status.UNKNOWN, detail=str(error)))


def configured_probes(settings: MetricsSettings) -> list[Probe]:
    """Those that the environment gives enough for. Raises SettingsError when a further variable is unusable."""
    probes: list[Probe] = []
    primary = settings.depot_replication_url.get_secret_value() if settings.depot_replication_url else None
    if settings.backup_dir:
        probes += _of_backups(settings.backup_dir)
    if settings.wal_archive_dir:
        probes += _of_archive(settings.wal_archive_dir, settings.backup_dir, primary)
    if spool := settings.wal_spool_dir:
        probes.append(_probe("spool_backlog", lambda: check_spool(spool)))
    if primary:
        probes += _of_servers(settings, primary)
    if replica := settings.depot_replica_url:
        probes.append(_probe("replica_health", lambda: check_standby(replica.get_secret_value(), primary)))
    probes += _of_blobs(settings)
    if url := settings.depot_url:
        probes.append(_probe("service_health", lambda: check_service(str(url))))
    if dagster := settings.dagster_url:
        probes.append(Probe(DAGSTER_CHECKS, lambda: latest_checks(str(dagster)), HALF_A_MINUTE))
    return probes


def _probe(name: str, ask: Callable[[], Finding], period_seconds: float = HALF_A_MINUTE) -> Probe:
    return Probe(name, lambda: [Seen(ask())], period_seconds)


def _of_backups(backup_dir: Path) -> list[Probe]:
    base, objectives = load(BaseBackupAgeSettings), load(ObjectiveSettings)

    def judge(objective: Objective) -> Probe:
        return _probe(objective.value, lambda: check_objective(objective, objectives))

    return [
        _probe("backup_age", lambda: check_backup_age(backup_dir)),
        Probe("complete", lambda: [Seen(glance(dump)) for dump in find_backups(backup_dir)[-1:]], HALF_A_MINUTE),
        Probe(
            "chain_intact",
            lambda: [Seen(check_chain(path)) for path in find_base_backups(backup_dir)[-1:]],
            HALF_A_MINUTE,
        ),
        _probe("base_backup_age", lambda: check_age(backup_dir, base.base_backup_max_age_hours)),
        *map(judge, OF_WHAT_LIES_HERE),
    ]


def _of_archive(archive_dir: Path, backup_dir: Path | None, primary: str | None) -> list[Probe]:
    def continuity() -> Finding:
        archive = open_archive(archive_dir)
        oldest = oldest_needed_segment(backup_dir, archive.system_identifier) if backup_dir else None
        return check_continuity(archive, oldest)

    probes = [
        _probe("wal_continuity", continuity, FIVE_MINUTES),
        _probe("wal_intact", lambda: check_intact(open_archive(archive_dir)), FIVE_MINUTES),
    ]
    if primary:
        # It finishes a segment of the log, which must not happen at every scrape.
        freshness = _probe(
            "wal_freshness", lambda: check_freshness(primary, archive_of(primary, archive_dir)), QUARTER_OF_AN_HOUR
        )
        probes.append(freshness)
    return probes


def _of_servers(settings: MetricsSettings, primary: str) -> list[Probe]:
    probes = [_probe("archiver_backlog", lambda: check_backlog(primary))]
    if settings.failover_provider is FailoverProvider.PATRONI:
        return probes + _of_patroni(load(PatroniSettings), primary)
    if settings.replica_dir:
        return probes + _of_replicas(settings, settings.replica_dir, primary)
    return probes + (_of_hosts(settings, primary) if watched_hosts(primary) else [])


def _of_blobs(settings: MetricsSettings) -> list[Probe]:
    probes = []
    if settings.asset_storage_replica_path:
        probes.append(_probe("mirror_lag", blobs.mirror_lag, FIVE_MINUTES))  # it lists every object
    if settings.asset_storage_replica_path or settings.asset_storage_path:
        probes.append(_probe("scrub_age", blobs.scrub_age, FIVE_MINUTES))
    return probes


def _of_replicas(settings: MetricsSettings, replica_dir: Path, primary: str) -> list[Probe]:
    limits = Limits(settings.replay_lag_threshold_seconds, settings.replay_lag_threshold_bytes)

    def lags() -> list[Seen]:
        found = watch(known_nodes(replica_dir), primary, limits)
        return [Seen(watched.finding(), watched.name) for watched in found]

    def single() -> Finding:
        account = server_account()
        place = Place(Nodes(replica_dir), primary, runnable_binaries(find_binaries(), account), account)
        return check_single_primary(place)

    return [Probe("replica_lag", lags, HALF_A_MINUTE), _probe("single_primary", single)]


def _of_hosts(settings: MetricsSettings, primary: str) -> list[Probe]:
    limits = Limits(settings.replay_lag_threshold_seconds, settings.replay_lag_threshold_bytes)

    def lags() -> list[Seen]:
        return [Seen(watched.finding(), watched.name) for watched in watch_hosts(primary, limits)]

    return [Probe("replica_lag", lags, HALF_A_MINUTE), _probe("single_primary", lambda: check_single_host(primary))]


def _of_patroni(settings: PatroniSettings, primary: str) -> list[Probe]:
    limits = Limits(settings.replay_lag_threshold_seconds, settings.replay_lag_threshold_bytes)

    def lags() -> list[Seen]:
        found = watch_members(patroni_of(settings), primary, limits, member_names(settings))
        return [Seen(watched.finding(), watched.name) for watched in found]

    single = _probe("single_primary", lambda: check_single_leader(patroni_of(settings), primary, epochs_of(settings)))
    return [Probe("replica_lag", lags, HALF_A_MINUTE), single]
