"""`python -m bench [--rounds 3] [--quick]`: prints one table. Paired with its baseline within each round; medians."""

import argparse
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.backups import bench_backups
from bench.blobs import PAPER_OBJECTS, PLANNED_RECORDS, bench_copies, bench_nothing_to_do, bench_planning
from bench.catalogue import PATHS, bench_catalogue
from bench.drills import bench_drills
from bench.merges import bench_execution, bench_worker
from bench.patroni import bench_patroni
from bench.reads import bench_reads
from bench.replicas import bench_replicas
from bench.results import Results, timed
from bench.stack import Stack, fresh_stack, peak_resident_bytes
from bench.tree import change_some, make_tree

SEED = 1
WHERE = ("--project", "bench", "--branch", "main")


def copy_and_sync(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", source, target], check=True)
    os.sync()


def bench_tree(results: Results, work: Path, rounds: int, files: int, big_bytes: int) -> None:
    tree = work / "tree"
    make_tree(tree, SEED, files, 4, big_bytes)
    submits, syncs, copies = [], [], []
    for number in range(rounds):
        os.sync()
        copies.append(timed(lambda: copy_and_sync(tree, work / "copy")))
        shutil.rmtree(work / "copy")
        with fresh_stack(work / f"data{number}", workers=2) as stack:
            stack.depot("project", "create", "bench")
            os.sync()
            submits.append(timed(partial(stack.depot, "submit", str(tree), *WHERE, "-m", "all")))
            os.sync()
            syncs.append(timed(partial(stack.depot, "sync", str(work / "out"), *WHERE)))
            if number == rounds - 1:
                bench_second_submit(results, stack, tree)
        for leftover in (work / f"data{number}", work / "out", tree / ".depot"):
            shutil.rmtree(leftover)
    results.add_paired("depot submit, empty depot", submits, copies, "≤ 1.5")
    results.add_paired("depot sync, empty directory", syncs, copies, "≤ 1.5")


def bench_second_submit(results: Results, stack: Stack, tree: Path) -> None:
    seconds = timed(lambda: stack.depot("submit", str(tree), *WHERE, "-m", "nothing"))
    results.add("depot submit, nothing changed", f"{seconds:.2f} s", "< 1 s")
    changed = change_some(tree, SEED + 1, 0.01)
    answer: dict[str, object] = {}
    seconds = timed(lambda: answer.update(stack.depot("submit", str(tree), *WHERE, "-m", "some")))
    told = {key: value for key, value in answer.items() if isinstance(value, int)}
    results.add(f"depot submit, {changed} files changed", f"{seconds:.2f} s", f"{changed} hashed and sent: {told}")


def bench_memory(results: Results, work: Path, stack: Stack, size_bytes: int) -> None:
    directory = work / "large"
    directory.mkdir()
    with (directory / "large.bin").open("wb") as file:
        for _ in range(size_bytes >> 20):
            file.write(os.urandom(1 << 20))
    stack.depot("project", "create", "large")
    where = ("--project", "large", "--branch", "main")
    with peak_resident_bytes(stack) as samples:
        stack.depot("submit", str(directory), *where, "-m", "large")
        stack.depot("sync", str(work / "large-out"), *where)
    shutil.rmtree(directory)
    shutil.rmtree(work / "large-out")
    grown = (max(samples) - samples[0]) >> 20
    measured = f"{max(samples) >> 20} MiB at most, {grown} more than idle"
    results.add(f"API memory, {size_bytes >> 30} GiB up and down", measured, "flat, < 250 MB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--failovers", type=int, help="how often a primary is lost; 20, and 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, to see that it runs")
    options = parser.parse_args()
    files, big_bytes, large_bytes = (200, 16 << 20, 1 << 30) if options.quick else (2000, 256 << 20, 4 << 30)
    paths = PATHS // 10 if options.quick else PATHS
    results = Results()
    with tempfile.TemporaryDirectory(prefix="depot-bench-") as directory:
        work = Path(directory)
        work.chmod(0o711)  # the database servers' account has to pass
        bench_tree(results, work, options.rounds, files, big_bytes)
        bench_copies(results, work, work / "tree", options.rounds)
        bench_nothing_to_do(results, work, PAPER_OBJECTS)
        with fresh_stack(work / "data", workers=1) as stack:
            bench_memory(results, work, stack, large_bytes)
            bench_reads(results, stack)
            bench_planning(results, stack, work, PLANNED_RECORDS // 10 if options.quick else PLANNED_RECORDS)
        with fresh_stack(work / "catalogue", workers=2) as stack:
            bench_catalogue(results, stack, paths)
            bench_worker(results, stack, 10)
        with fresh_stack(work / "dagster", workers=1, dagster=True) as stack:
            bench_execution(results, stack, 5)
        gigabytes = 0.2 if options.quick else 2.0
        bench_backups(results, work, gigabytes, options.rounds)
        bench_drills(results, work, gigabytes, options.rounds)
        (work / "replicas").mkdir(mode=0o711)
        failovers = options.failovers or (3 if options.quick else 20)
        bench_replicas(results, work / "replicas", gigabytes, options.rounds, failovers)
        bench_patroni(results, work, failovers)
    Console(width=140).print(results.table)


if __name__ == "__main__":
    main()
