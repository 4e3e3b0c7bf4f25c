"""What assets, checks and ops are given. The UI shows the names of environment variables, never their values."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from depot_ops.drills.objectives import Objective, check_objective
from depot_ops.drills.record import DrillKind, DrillRecord
from depot_ops.drills.run import run_drill
from depot_ops.drills.site import configured_site
from depot_ops.evidence import Finding, Status
from depot_ops.health import check_service
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.dump import NotTaken, take_logical_backups
from depot_ops.postgres.dump_checks import DumpCheck, verify_newest
from depot_ops.postgres.dump_databases import dump_options, dumped_databases
from depot_ops.postgres.dump_record import BackupRecord
from depot_ops.replicas.health import Limits
from depot_ops.replicas.hosts import check_single_host, watch_hosts
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.replicas.patroni import Patroni
from depot_ops.replicas.patroni_watch import check_single_leader, check_synchronous_mode, watch_members
from depot_ops.replicas.single_primary import CHECK, check_single_primary
from depot_ops.replicas.site import ASSISTED, check_assisted, epochs_of, member_names, patroni_of, place_of
from depot_ops.replicas.synchronous import CHECK as SYNCHRONOUS
from depot_ops.replicas.synchronous import check_synchronous
from depot_ops.replicas.watch import Watched, known_nodes, watch
from depot_ops.settings import (
    BackupSettings,
    DrillSettings,
    DumpChoiceSettings,
    FailoverProvider,
    FailoverSettings,
    ObjectiveSettings,
    PatroniSettings,
    ReplicaSettings,
    SettingsError,
    load,
)


class DumpSource(dg.ConfigurableResource[None]):
    """The depot's database, as the role that may read everything. What is dumped beside it is read when needed."""

    url: str

    def take_logical_backups(self, directory: Path) -> tuple[list[BackupRecord], list[NotTaken]]:
        settings = load(DumpChoiceSettings)
        urls = dumped_databases(self.url, settings)
        return take_logical_backups(urls, directory, find_binaries(), dump_options(settings))


class BackupDirectory(dg.ConfigurableResource[None]):
    """Where backups and their records lie."""

    path: str

    def verify_newest(self, check: DumpCheck) -> list[Finding]:
        return verify_newest(Path(self.path), [check])


class DepotService(dg.ConfigurableResource[None]):
    """The depot's REST service."""

    url: str

    def check_health(self) -> Finding:
        return check_service(self.url)


class RestoreDrills(dg.ConfigurableResource[None]):
    """Restoring what was backed up. Its many settings, half of them optional, are read when they are needed."""

    def run(self, kind: DrillKind, say: Callable[[str], None], *, from_copy: bool = False) -> DrillRecord:
        return run_drill(kind, configured_site(load(DrillSettings), say, from_copy=from_copy))

    def judge(self, objective: Objective) -> Finding:
        return check_objective(objective, load(ObjectiveSettings))

    @property
    def backup_dir(self) -> Path:
        return load(BackupSettings).backup_dir


class Replicas(dg.ConfigurableResource[None]):
    """The servers that replicate each other."""

    url: str

    def watch(self, names: list[str]) -> list[Watched]:
        """Each of them, in their order; one that is known no more is unknown."""
        settings = load(PatroniSettings)
        limits = Limits(settings.replay_lag_threshold_seconds, settings.replay_lag_threshold_bytes)
        try:
            if settings.failover_provider is FailoverProvider.PATRONI:
                wanted = {url: name for url, name in member_names(settings).items() if name in names}
                found = watch_members(patroni_of(settings), self.url, limits, wanted)
            elif settings.replica_dir is None:
                found = watch_hosts(self.url, limits)
            else:
                nodes = [node for node in known_nodes(settings.replica_dir) if node.name in names]
                found = watch(nodes, self.url, limits)
        except ReplicaError as error:
            return [Watched.unknown(name, str(error)) for name in names]
        known = {watched.name: watched for watched in found}
        return [known.get(name) or Watched.gone(name) for name in names]

    def count_primaries(self) -> Finding:
        """Whether one server alone takes writes."""
        try:
            if (patroni := self._patroni()) is not None:
                return check_single_leader(patroni, self.url, epochs_of(load(PatroniSettings)))
            if load(ReplicaSettings).replica_dir is None:
                return check_single_host(self.url)
            return check_single_primary(place_of(load(FailoverSettings)))
        except (ReplicaError, SettingsError) as error:
            return Finding(check=CHECK, status=Status.UNKNOWN, detail=str(error))

    def check_assisted(self) -> Finding:
        """Whether a lost primary would be replaced, where that is wanted."""
        try:
            return check_assisted(load(FailoverSettings))
        except (ReplicaError, SettingsError) as error:
            return Finding(check=ASSISTED, status=Status.UNKNOWN, detail=str(error))

    def _patroni(self) -> Patroni | None:
        settings = load(PatroniSettings)
        return patroni_of(settings) if settings.failover_provider is FailoverProvider.PATRONI else None

    def check_synchronous(self) -> Finding:
        """Whether a standby has what is acknowledged, where that is asked for."""
        try:
            if (patroni := self._patroni()) is not None:
                return check_synchronous_mode(patroni)
            if load(ReplicaSettings).replica_dir is None:
                detail = "without REPLICA_DIR no synchronous mode is kept here: nothing waits for a standby"
                return Finding(check=SYNCHRONOUS, status=Status.HEALTHY, detail=detail)
            place = place_of(load(FailoverSettings))
            return check_synchronous(place.nodes, place.url)
        except (ReplicaError, SettingsError) as error:
            return Finding(check=SYNCHRONOUS, status=Status.UNKNOWN, detail=str(error))


RESOURCES = {
    "dump_source": DumpSource(url=dg.EnvVar("DEPOT_DUMP_URL")),
    "backups": BackupDirectory(path=dg.EnvVar("BACKUP_DIR")),
    "drills": RestoreDrills(),
    "replicas": Replicas(url=dg.EnvVar("DEPOT_REPLICATION_URL")),
    "depot": DepotService(url=dg.EnvVar("DEPOT_URL")),
}
