"""Which segment of which timeline a recovery reads, from the histories that an archive holds."""

from collections.abc import Collection
from dataclasses import dataclass

from depot_ops.postgres.wal.archive import NotArchived, WalArchive
from depot_ops.postgres.wal.content import Switch, parse_history
from depot_ops.postgres.wal.names import WalKind, WalName, format_lsn, history_name, parse_wal_name, segment_name


class UnknownTimeline(Exception):
    """No path leads from the base backup to the timeline; the message says why."""


@dataclass(frozen=True, slots=True)
class TimelinePath:
    """The timelines that led to `timeline`, and where each was left for the next."""

    timeline: int
    switches: tuple[Switch, ...] = ()

    def contains(self, timeline: int, position: int) -> bool:
        """Does this history go through `position` of `timeline`?"""
        if timeline == self.timeline:
            return not self.switches or position >= self.switches[-1].position
        began = 0
        for switch in self.switches:
            if switch.timeline == timeline:
                return began <= position <= switch.position
            began = switch.position
        return False

    @property
    def branch_position(self) -> int:
        """Where `timeline` began: what it inherited ends here."""
        return self.switches[-1].position if self.switches else 0

    def timeline_of_segment(self, number: int, segment_size_bytes: int) -> int:
        """A segment in which a timeline was left is read from the later one, which begins with a copy of it."""
        for switch in self.switches:
            if number < switch.position // segment_size_bytes:
                return switch.timeline
        return self.timeline

    def segment_names(self, first: int, last: int, segment_size_bytes: int) -> list[str]:
        """The names of the segments `first` to `last` as a recovery along this path reads them."""
        return [
            segment_name(self.timeline_of_segment(number, segment_size_bytes), number, segment_size_bytes)
            for number in range(first, last + 1)
        ]


def inherited_start(path: TimelinePath, known: Collection[str], segment_size_bytes: int) -> WalName | None:
    """The archived file of an ancestor that has all of the segment in which `path.timeline` began, up to there.

    The new timeline's own file of it is archived once it is full. Until then the ancestor's has the same bytes, and
    more behind them; or it is `.partial`, as a promotion leaves it.
    """
    number = path.branch_position // segment_size_bytes
    for switch in reversed(path.switches):
        if switch.position != path.branch_position:
            break  # an older one lacks what was written between the two
        name = segment_name(switch.timeline, number, segment_size_bytes)
        for candidate in (name, f"{name}.partial"):
            if candidate in known:
                return parse_wal_name(candidate)
    return None


def path_to(archive: WalArchive, timeline: int) -> TimelinePath:
    """The way to `timeline`. Raises UnknownTimeline when its history is not archived, ArchiveError, BadWalFile."""
    if timeline == 1:
        return TimelinePath(1)
    name = parse_wal_name(history_name(timeline))
    assert name is not None
    try:
        return TimelinePath(timeline, tuple(parse_history(name.name, archive.fetch(name))))
    except NotArchived:
        raise UnknownTimeline(
            f"{name.name} is not in the archive: nothing says where timeline {timeline} branched off"
        ) from None


def newest_path(archive: WalArchive, timeline: int, position: int) -> TimelinePath:
    """The newest timeline whose history goes through `position` of `timeline`. Raises UnknownTimeline."""
    known = {name.timeline for name in archive.names() if name.kind in (WalKind.HISTORY, WalKind.SEGMENT)}
    for candidate in sorted(known, reverse=True):
        if candidate < timeline:
            break
        path = path_to(archive, candidate) if candidate != timeline else _own_path(archive, timeline)
        if path.contains(timeline, position):
            return path
    raise UnknownTimeline(f"the archive has no timeline that goes through {format_lsn(position)} of {timeline}")


def _own_path(archive: WalArchive, timeline: int) -> TimelinePath:
    """Of the base's own timeline the history may be older than the archive; the base itself stands for it."""
    try:
        return path_to(archive, timeline)
    except UnknownTimeline:
        return TimelinePath(timeline)
