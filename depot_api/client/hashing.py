"""What the files of a tree hold, read only where the records do not tell."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from threading import Event

from depot_api.client.files import FileStat, hash_file
from depot_api.client.parallel import in_groups, run_all
from depot_api.client.progress import Progress, Stage
from depot_api.client.workspace import Seen, Workspace, now_ns

WORKERS = 4
GROUP_BYTES = 16 << 20
GROUP_FILES = 1_000


def hash_files(root: Path, files: Mapping[str, FileStat], progress: Progress) -> Iterator[dict[str, Seen]]:
    """Read and hash files below `root` in threads; yields groups as they are ready. Raises FileChanged."""
    progress.begin(Stage.HASHING, sum(stat.size_bytes for stat in files.values()))
    stop = Event()

    def hash_group(group: list[tuple[str, FileStat]]) -> dict[str, Seen]:
        seen = {}
        for path, stat in group:
            looked_at_ns = now_ns()
            seen[path] = Seen(stat, hash_file(root / path, stat, stop), looked_at_ns)
            progress.advance(stat.size_bytes)
        return seen

    grouped = in_groups(files.items(), lambda item: item[1].size_bytes, GROUP_BYTES, GROUP_FILES)
    return run_all([partial(hash_group, group) for group in grouped], WORKERS, stop)


def current_hashes(
    workspace: Workspace, files: Mapping[str, FileStat], paths: Iterable[str], progress: Progress
) -> dict[str, str]:
    """The hashes of those `paths` that exist in `files`; what had to be read is remembered."""
    seen = workspace.seen()
    known: dict[str, str] = {}
    unknown: dict[str, FileStat] = {}
    for path in paths:
        stat = files.get(path)
        if stat is None:
            continue
        if path in seen and seen[path].holds_for(stat):
            known[path] = seen[path].sha256
        else:
            unknown[path] = stat
    if not unknown:
        return known
    for group in hash_files(workspace.root, unknown, progress):
        workspace.remember_seen(group)
        known |= {path: one.sha256 for path, one in group.items()}
    return known
