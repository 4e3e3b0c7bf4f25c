"""The dry run: catalogue and bucket side by side, and what it costs."""

import hashlib
import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from depot_ops.cli import app
from depot_ops.tiering.bucket import Listed
from depot_ops.tiering.catalogue import Judged, open_catalogue
from depot_ops.tiering.classes import StorageClass
from depot_ops.tiering.plan import merged
from depot_ops.tiering.policy import Policy

POLICY = {
    "rules": [
        {"name": "archived", "when": {"branch_state": ["archived"]}, "storage_class": "DEEP_ARCHIVE"},
        {"name": "textures", "when": {"type": ["texture"], "older_than_days": 100}, "storage_class": "GLACIER"},
        {"name": "old", "when": {"older_than_days": 30}, "storage_class": "STANDARD_IA"},
    ]
}
BIG = 200 << 10
CLASSES = [str(name) for name in StorageClass]
hashes = st.lists(st.integers(0, 30).map(lambda n: f"{n:064x}"), unique=True).map(sorted)


@given(hashes, hashes)
def test_each_hash_is_met_once(recorded, listed):
    catalogue = [Judged(sha256, 1, None) for sha256 in recorded]
    pairs = list(merged(catalogue, [Listed(sha256, sha256, 1, "STANDARD", "") for sha256 in listed]))
    met = [(blob or found).sha256 for blob, found in pairs]
    assert met == sorted({*recorded, *listed})
    assert [blob.sha256 for blob, _ in pairs if blob] == recorded
    assert [found.sha256 for _, found in pairs if found] == listed


def wanted(depot_database, policy: dict) -> dict[str, str]:
    made = Policy.model_validate({"version": 1} | policy)
    with open_catalogue(depot_database.dump_url, page_blobs=2) as opened:
        judged = list(opened.judged(made, datetime.now(UTC)))
    assert [one.sha256 for one in judged] == sorted(one.sha256 for one in judged)
    return {one.sha256: str(one.verdict.storage_class) for one in judged if one.verdict}


def contents(history, count: int) -> list[str]:
    made = [hashlib.sha256(bytes([n])).hexdigest() for n in range(count)]
    for sha256 in made:
        history.blob(sha256, BIG)
    return made


def test_what_refers_to_each_content(history, depot_database):
    """Several pages of the catalogue, and each kind of reference."""
    archived, old, young, shelved, _unreferenced, shared = contents(history, 6)
    history.branch("Done", "main", status="archived")
    history.version(archived, project="Done")
    history.version(old, path="Content/old.uasset", days_old=200, asset_type="texture")
    history.version(young, path="Content/young.uasset", days_old=2, asset_type="texture")
    history.shelve(shelved, "Content/old.uasset", days_old=101)
    history.version(shared, project="Done", path="a")
    history.version(shared, path="b", days_old=40)
    assert wanted(depot_database, POLICY) == {
        archived: "DEEP_ARCHIVE",
        old: "GLACIER",
        young: "STANDARD",
        shelved: "GLACIER",
        shared: "STANDARD_IA",
    }


def test_what_a_release_still_shows_is_not_superseded(history, depot_database):
    """A newer version supersedes an older one, but on branches that see their parent as it was before that."""
    first, second, third, only = contents(history, 4)
    numbers = [history.version(sha256, path="Content/hero.uasset") for sha256 in (first, second, third)]
    history.version(only, path="Content/rock.uasset")
    rules = {"rules": [{"name": "superseded", "when": {"superseded": True}, "storage_class": "GLACIER"}]}
    assert wanted(depot_database, rules) == {
        first: "GLACIER",
        second: "GLACIER",
        third: "STANDARD",
        only: "STANDARD",
    }
    history.inherit("Hero", "release/1.0", "main", numbers[1])
    history.label("Hero", "release/1.0")
    assert wanted(depot_database, rules)[second] == "STANDARD"
    assert wanted(depot_database, rules)[first] == "GLACIER"


def test_branches_by_name_and_by_label(history, depot_database):
    released, named, other = contents(history, 3)
    history.version(released, path="a", branch="one")
    history.version(named, path="b", branch="release/2.0")
    history.version(other, path="c")
    history.label("Hero", "one")
    rules = [
        {"name": "by label", "when": {"branch_state": ["released"]}, "storage_class": "GLACIER"},
        {"name": "by name", "when": {"branch": ["release/*"]}, "storage_class": "GLACIER_IR"},
        {"name": "rest", "when": {"branch_state": ["active"]}, "storage_class": "STANDARD_IA"},
    ]
    assert wanted(depot_database, {"rules": rules}) == {
        released: "GLACIER",
        named: "GLACIER_IR",
        other: "STANDARD_IA",
    }


def test_the_plan(configured, history, tmp_path, monkeypatch):
    names = {"up": "GLACIER", "down": "STANDARD", "stays": "STANDARD", "archived": "GLACIER", "alien": "ONEZONE_IA"}
    objects = {name: configured.put(name, storage_class) for name, storage_class in names.items()}
    objects["small"] = configured.put("small", size_bytes=(128 << 10) - 1)
    configured.put("in no catalogue")
    ages = {"up": 3, "down": 40, "stays": 3, "archived": 200, "alien": 200, "small": 200}
    for name, sha256 in objects.items():
        history.blob(sha256, configured.head(sha256)["ContentLength"])
        history.version(sha256, path=f"Content/{name}.uasset", days_old=ages[name])
    history.version(objects["archived"], path="b", project="Hero", days_old=300)
    history.branch("Done", status="archived")
    missing = hashlib.sha256(b"not pushed").hexdigest()
    history.blob(missing, BIG)
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "version: 1\ncurrency: EUR\nclasses:\n"
        + "".join(f"  {name}: {{gib_month: {100 - 10 * n}, thousand_moves: 1000}}\n" for n, name in enumerate(CLASSES))
    )
    monkeypatch.setenv("TIER_PRICES_PATH", str(prices))
    done = CliRunner().invoke(app, ["tier", "plan", "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    moves = {(move["before"], move["after"]): move["objects"] for move in plan["moves"]}
    assert moves == {("GLACIER", "STANDARD"): 1, ("STANDARD", "STANDARD_IA"): 1, ("GLACIER", "STANDARD_IA"): 1}
    lines = {line["storage_class"]: line for line in plan["classes"]}
    assert (lines["STANDARD"]["objects_before"], lines["STANDARD"]["objects_after"]) == (4, 4)
    assert (lines["GLACIER"]["objects_before"], lines["GLACIER"]["objects_after"]) == (2, 0)
    assert (lines["STANDARD_IA"]["bytes_after"], lines["ONEZONE_IA"]["cost_after"]) == (2 * BIG, None)
    assert lines["STANDARD_IA"]["cost_after"] == round(2 * BIG / (1 << 30) * 80, 2)
    assert (plan["moves_cost"], plan["currency"]) == (3.0, "EUR")
    assert (plan["objects_not_in_bucket"], plan["objects_not_in_catalogue"]) == (1, 1)
    assert plan["objects_in_other_classes"] == 1
    told = CliRunner().invoke(app, ["tier", "plan"])
    assert "GLACIER → STANDARD: 1 objects, 204,800 bytes" in told.output
    assert "1 objects are not in the bucket yet" in told.output


def test_a_policy_that_cannot_be_used_is_told(configured, policy_path):
    policy_path.write_text("version: 1\nrules:\n  - {name: a, storage_class: ICE}\n")
    done = CliRunner().invoke(app, ["tier", "plan"])
    assert done.exit_code == 3
    assert f"{policy_path}:3: rules[0].storage_class: Input should be" in done.output


def test_a_bucket_is_needed(configured, monkeypatch):
    monkeypatch.setenv("BLOB_COPY_URL", "file:///somewhere")
    done = CliRunner().invoke(app, ["tier", "plan"])
    assert done.exit_code == 3
    assert "has no storage classes" in done.output
