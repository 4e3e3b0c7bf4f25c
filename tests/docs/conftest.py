"""Who runs the pages' examples: a real service, and what a shell beside it has."""

import os
import sys
from pathlib import Path

import pytest

from tests.depot_api.conftest import ADMIN_PASSWORD, Api, api

__all__ = ["api"]


@pytest.fixture
def shell(api: Api) -> dict[str, str]:
    """The environment of somebody who may sign in to the service as admin."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "LC_ALL": "C.UTF-8",
        "DEPOT_URL": api.url,
        "DEPOT_USERNAME": "admin",
        "DEPOT_PASSWORD": ADMIN_PASSWORD,
    }
