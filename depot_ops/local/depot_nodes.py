"""The depot's own servers in the embedded stack: one, or a primary and its standby, which may have changed places."""

import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from depot_ops.local import ports
from depot_ops.local.supervisor import CannotStart
from depot_ops.postgres.accounts import AccountError, ServerAccount
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.cluster import Cluster, ClusterError, Patience, archiving
from depot_ops.replicas.create import PRIMARY, Place, copy
from depot_ops.replicas.nodes import Node, Nodes, ReplicaError
from depot_ops.replicas.server import STANDBY_SIGNAL
from depot_ops.replicas.streaming import admit, connected, facts_of_primary, prove_streaming

STANDBY = "standby"
HOLD_SECONDS = 120.0
PROOF_SECONDS = 30.0
RETRY_SECONDS = 30.0


@dataclass(frozen=True)
class DepotNodes:
    """`primary` is the one that takes writes as the stack starts, in whichever directory that is."""

    nodes: Nodes
    primary: Cluster
    standby: Cluster | None
    wal_spool: Path
    """Of both: which of them archives changes, what is in the archive does not."""

    @classmethod
    def found(
        cls,
        home: Path,
        password: str,
        binaries: Binaries,
        account: ServerAccount,
        settings: Mapping[str, str],
        with_standby: bool,
    ) -> "DepotNodes":
        """As the directories below `home` say. Raises ReplicaError when they contradict each other."""
        first_home = home / PRIMARY
        settings = {**settings, **archiving(first_home, binaries.major)}
        first, second = (
            Cluster(home / name, ports.any_free(), password, binaries, account, settings) for name in (PRIMARY, STANDBY)
        )
        nodes = Nodes(home / "nodes")
        nodes.prepare()
        if not with_standby and not second.data.is_dir():
            return cls(nodes, first, None, first.wal_spool)
        standbys = [one for one in (first, second) if not may_write(one) or nodes.is_half_rewound(one.home.name)]
        if len(standbys) != 1:
            which = "Both" if not standbys else "None"
            raise ReplicaError(
                f"{which} of {first.data} and {second.data} would take writes. Find out which one has the last epoch"
                f" (table cluster_epochs), and leave a file {STANDBY_SIGNAL} in the other one only."
            )
        writer = second if standbys[0] is first else first
        return cls(nodes, writer, standbys[0], first.wal_spool)

    def record(self) -> None:
        """Where they are this time, for `depot-ops replica`."""
        for cluster in (self.primary, self.standby):
            if cluster is not None:
                self.nodes.save(self._node(cluster))

    def _node(self, cluster: Cluster) -> Node:
        return Node(name=cluster.home.name, data=cluster.data, port=cluster.port, supervised=True)

    def _place(self) -> Place:
        # No archive: the server's account reaches neither its directory nor our interpreter for sure, and a server
        # stops when its restore_command fails. The slot keeps what the standby needs.
        return Place(self.nodes, self.primary.url(), self.primary.binaries, self.primary.account)

    def prepare_standby(self, standby: Cluster) -> None:
        """Copy the primary where there is no standby, and tell it where the primary is this time."""
        place, node = self._place(), self._node(standby)
        with self.nodes.locked(), connected(self.primary.url()) as primary:
            if self.nodes.is_half_rewound(node.name):  # nothing but a new copy makes it a cluster again
                shutil.rmtree(standby.data, ignore_errors=True)
                self.nodes.half_rewound(node).unlink()
            if not standby.data.is_dir():
                copy(place, primary, facts_of_primary(primary), node)
                return
            admit(primary, node, self.nodes.passfile(node), place.server(node))
            place.server(node).configure(place.settings(node, self.primary.port))

    def prove_standby(self, standby: Cluster) -> None:
        with connected(self.primary.url()) as primary:
            prove_streaming(primary, standby.url(), self._node(standby), PROOF_SECONDS)

    def url(
        self, database: str = "postgres", user: str = "postgres", password: str | None = None, wanted: str = "primary"
    ) -> str:
        """The address of whichever of them is `wanted` (target_session_attrs), the primary first."""
        if self.standby is None:
            return self.primary.url(database, user, password)
        secret = quote(self.primary.password if password is None else password, safe="")
        hosts = ",".join(f"127.0.0.1:{cluster.port}" for cluster in (self.primary, self.standby))
        return f"postgresql://{user}:{secret}@{hosts}/{database}?target_session_attrs={wanted}"


def may_write(cluster: Cluster) -> bool:
    """Whether the directory would be a primary if it were started; one that is not there yet becomes a standby."""
    if not cluster.data.is_dir():
        return cluster.home.name == PRIMARY
    return not (cluster.data / STANDBY_SIGNAL).exists()


@dataclass
class NodeService:
    """One of them under supervision, which waits while `depot-ops replica` changes its directory."""

    name: str
    cluster: Cluster
    nodes: DepotNodes
    patience: Patience
    _not_before: float = field(default=0.0, init=False)

    @property
    def log(self) -> Path:
        return self.cluster.log

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return self.cluster.process

    def start(self) -> None:
        """A primary recovers for as long as it takes. A standby that cannot be started is told of, and tried again.

        Raises CannotStart for a primary.
        """
        if time.monotonic() < self._not_before:
            return
        nodes, name = self.nodes.nodes, self.cluster.home.name
        try:
            with nodes.held(name, HOLD_SECONDS):
                if nodes.is_half_rewound(name):
                    # Recovering alone, it may have been an old primary without its signal: started, it would write.
                    self._later(f"a rejoin of it was interrupted: run `depot-ops replica rejoin {name}`")
                elif self.cluster.data.is_dir():  # else it was removed, or is about to be copied anew
                    self.cluster.start(self.patience if may_write(self.cluster) else None)
        except (AccountError, ClusterError, ReplicaError) as error:
            self.cluster.stop()
            if may_write(self.cluster):
                raise CannotStart(str(error)) from error
            self._later(str(error))

    def _later(self, reason: str) -> None:
        self._not_before = time.monotonic() + RETRY_SECONDS
        self.patience.say(f"{self.name} cannot be started: {reason}")

    def stop(self) -> None:
        self.cluster.stop()
