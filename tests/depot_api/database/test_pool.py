"""The pool follows the primary: by what it heard of epochs, and by where it was last."""

import asyncio

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from depot_api.database.hosts import Hosts
from depot_api.database.pool import Database, SupersededServer, Unconfirmed
from depot_api.epochs import EpochFile

LATER = 7


@pytest.mark.parametrize("before", [True, False], ids=["before-the-commit", "after-the-commit"])
def test_what_a_superseded_server_commits_is_not_acknowledged(depot_database, tmp_path, before):
    """Its successor was promoted while the transaction ran; a commit that can still be left out is."""
    epochs = EpochFile(tmp_path / "cluster-epoch")
    committed = []
    with psycopg.connect(depot_database.owner_url) as owner:
        row = owner.execute("INSERT INTO users (username, studio_role) VALUES ('u', 'viewer') RETURNING id").fetchone()

    async def scenario() -> None:
        database = Database(depot_database.service_url, 1, 1, epochs, 5.0)
        await database.open()
        try:
            async with database.transaction(row[0], "test") as tx:
                commit = tx.commit

                async def watched() -> None:
                    await commit()
                    committed.append(True)
                    epochs.raise_to(LATER)

                tx.commit = watched
                if before:
                    epochs.raise_to(LATER)
        finally:
            await database.close()

    with pytest.raises(SupersededServer if before else Unconfirmed, match=f"{LATER} is known"):
        asyncio.run(scenario())
    assert committed == ([] if before else [True])


def test_the_host_that_was_the_primary_last_is_tried_first():
    hosts = Hosts("postgresql://depot_service@a:1,b:2,c/depot?target_session_attrs=read-write")
    hosts.try_first(("b", "2"))
    assert order(hosts) == ("b,a,c", "2,1,5432")
    hosts.try_last(("b", "2"))
    assert order(hosts) == ("a,c,b", "1,5432,2")
    hosts.try_first(("elsewhere", "2"))
    assert order(hosts) == ("a,c,b", "1,5432,2")


def order(hosts: Hosts) -> tuple[str, str]:
    address = conninfo_to_dict(hosts.conninfo())
    return str(address["host"]), str(address["port"])
