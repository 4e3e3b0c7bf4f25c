"""What is in the middle of a rejoin is nobody's primary: without its signal a start would make it writable."""

import threading

import pytest

from depot_ops.local.depot_nodes import DepotNodes, NodeService
from depot_ops.postgres.accounts import server_account
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.cluster import Cluster, Patience
from depot_ops.replicas.nodes import ReplicaError


@pytest.fixture
def found(tmp_path):
    """How the stack would begin with two directories, neither of them with a signal."""
    for name in ("primary", "standby"):
        (tmp_path / name / "data").mkdir(parents=True)
    return lambda: DepotNodes.found(tmp_path, "secret", find_binaries(), server_account(), {}, with_standby=True)


def test_the_other_one_is_the_primary(found, tmp_path):
    with pytest.raises(ReplicaError, match="would take writes"):
        found()
    (tmp_path / "nodes" / "primary.rewinding").touch()
    assert found().primary.home.name == "standby"


def test_it_is_not_started(found, tmp_path, monkeypatch):
    marker = tmp_path / "nodes" / "primary.rewinding"
    marker.parent.mkdir()
    marker.touch()
    nodes = found()
    started, said = [], []

    patience = Patience(said.append, threading.Event())

    def start(cluster: Cluster, _: Patience | None) -> None:
        started.append(cluster)

    monkeypatch.setattr(Cluster, "start", start)
    service = NodeService("postgres", nodes.standby, nodes, patience)
    service.start()
    service.start()
    assert started == []
    assert len(said) == 1
    assert "a rejoin of it was interrupted" in said[0]
    marker.unlink()
    NodeService("postgres", nodes.standby, nodes, patience).start()
    assert started == [nodes.standby]
