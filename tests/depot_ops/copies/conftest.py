"""A place to copy to, with the means to damage what it holds."""

from pathlib import Path

import pytest

from depot_ops.places import Place, open_place


@pytest.fixture
def place_dir(tmp_path: Path) -> Path:
    return tmp_path / "second"


@pytest.fixture
def place(place_dir: Path) -> Place:
    place_dir.mkdir()
    return open_place(place_dir.as_uri())
