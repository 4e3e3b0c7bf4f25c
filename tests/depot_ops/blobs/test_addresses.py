"""An unusable address of the catalogue is told without quoting it: it has a password."""

import traceback
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from depot_ops.blob_commands import app
from depot_ops.blobs.collect import CollectError, CollectPolicy, collect
from depot_ops.blobs.mirror import check_complete
from depot_ops.blobs.records import CatalogueUnreachable
from depot_ops.tiering.catalogue import open_catalogue
from depot_ops.tiering.evict import Eviction

PERIOD = timedelta(days=30)


@pytest.mark.parametrize(
    "url", ["postgresql://u:{}@h:x:1/d", "u:{}", "postgresql://u:a@{}@h/d", "postgresql://u:{}/b@h/d"]
)
def test_an_address_that_is_none_is_not_quoted(copies, monkeypatch, tmp_path, url):
    canary, told = "canary1password", []
    url = url.format(canary)
    copies.mirror_root.joinpath("objects").mkdir(parents=True)
    told.append(check_complete(copies.mirror_root, url, 60).detail)
    with pytest.raises(CatalogueUnreachable) as raised, open_catalogue(url):
        pass
    told.append("".join(traceback.format_exception(raised.value)))
    eviction = Eviction(copies.root, copies.mirror_root, None, url, PERIOD, 1)
    with pytest.raises(CatalogueUnreachable) as raised:
        eviction.run([], delete=True)
    told.append("".join(traceback.format_exception(raised.value)))
    with pytest.raises(CollectError) as raised:
        collect(url, copies.root, [], CollectPolicy(tmp_path, PERIOD))
    told.append("".join(traceback.format_exception(raised.value)))
    for name, value in {"DEPOT_DUMP_URL": url, "ASSET_STORAGE_REPLICA_PATH": str(copies.mirror_root)}.items():
        monkeypatch.setenv(name, value)
    told.append(CliRunner().invoke(app, ["restore"]).output)
    assert all("database address" in one for one in told), told
    assert not [one for one in told if canary in one]
