"""The loss of the primary's host under Patroni, at its default settings and tuned, beside what Dagster's sensor takes.

Real members with Patroni's own Raft, on the servers' account; the host is lost by kill -9 of Patroni and PostgreSQL.
`python -m bench.patroni --failovers 2` measures only this and the sensor, on an empty depot.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench.replicas import PASSWORD, SEED, SETTINGS, Submitter, bench_replicas, service, stopped_depot, submitting, told
from bench.results import Results
from tests.depot_ops.replicas.patroni_nodes import PatroniNodes, patroni_nodes

# Its documentation's, and the shortest that it takes with a look every other second.
DEFAULT = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}
TUNED = {"ttl": 20, "loop_wait": 2, "retry_timeout": 9}


def bench_patroni(results: Results, work: Path, failovers: int) -> None:
    seed = stopped_depot(work / "patroni-seed", 0)
    for name, dcs in (("default", DEFAULT), ("tuned", TUNED)):
        home = work / f"patroni-{name}"
        home.mkdir(mode=0o711)
        with patroni_nodes(seed.data, home, PASSWORD, seed.binaries, seed.account, dcs, SETTINGS) as nodes:
            ports = tuple(member.port for member in nodes.members.values())
            with service(ports, home) as url, submitting(url) as submitter:
                outages = [_outage(nodes, submitter, random.Random(f"{SEED} {number}")) for number in range(failovers)]
        settings = f"ttl {dcs['ttl']}, loop_wait {dcs['loop_wait']}"
        results.add(f"loss of the primary's host to first submit, by Patroni, {settings}", told(outages), "")


def _outage(nodes: PatroniNodes, submitter: Submitter, moments: random.Random) -> float:
    """The lease is struck at any moment of its own rhythm."""
    nodes.wait_until_whole()
    time.sleep(moments.uniform(0, 10))
    old = nodes.leader()
    assert old is not None
    killed = time.monotonic()
    nodes.members[old].kill()
    seconds = submitter.first_after(killed)
    nodes.members[old].start()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.patroni", description=__doc__)
    parser.add_argument("--failovers", type=int, default=20)
    options = parser.parse_args()
    results = Results()
    with tempfile.TemporaryDirectory(prefix="depot-bench-") as directory:
        work = Path(directory)
        work.chmod(0o711)  # the database servers' account has to pass
        (work / "replicas").mkdir(mode=0o711)
        bench_replicas(results, work / "replicas", 0.01, 1, options.failovers)
        bench_patroni(results, work, options.failovers)
    Console(width=140).print(results.table)


if __name__ == "__main__":
    main()
