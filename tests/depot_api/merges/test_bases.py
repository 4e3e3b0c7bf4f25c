"""The base of a merge, from recorded forks and merges alone."""

from itertools import permutations
from uuid import UUID

import pytest

from depot_api.merges.bases import Landed, MergeHistory, Point


@pytest.mark.parametrize("ids", list(permutations(range(3))))
def test_there_is_a_base_also_where_old_merges_share_a_number(ids):
    """As merges that changed nothing were recorded before they had a number of their own: each knows the next."""
    main, left, right = (UUID(int=number) for number in ids)
    landed = [
        Landed(source=Point(main, 1), target=Point(left, 1)),
        Landed(source=Point(left, 1), target=Point(main, 1)),
        Landed(source=Point(right, 1), target=Point(left, 1)),
    ]
    history = MergeHistory({main: None, left: Point(main, 1), right: Point(main, 1)}, landed)
    assert len(history.common_points(history.known(Point(left, 1)), history.known(Point(right, 1)))) == 1
