"""The policy's laws: the warmest reference wins, small objects stay, and what is wrong is told with its line."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot_ops.tiering.classes import SMALLEST_MOVED_BYTES, StorageClass
from depot_ops.tiering.documents import DocumentError, parse_document
from depot_ops.tiering.policy import BranchState, Match, Policy, Reference, Rule
from depot_ops.tiering.prices import load_prices

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BIG = SMALLEST_MOVED_BYTES
references = st.builds(
    Reference,
    project=st.sampled_from(["Hero", "Old Hero"]),
    branch=st.sampled_from(["main", "release/1.0"]),
    branch_states=st.sets(st.sampled_from(BranchState), min_size=1).map(frozenset),
    asset_type=st.sampled_from(["", "texture"]),
    path=st.sampled_from(["Content/a.uasset", "Source/b.psd"]),
    referenced_at=st.integers(0, 400).map(lambda days: NOW - timedelta(days=days)),
    superseded=st.booleans(),
)
matches = st.builds(
    Match,
    project=st.sampled_from([[], ["old*"]]),
    branch=st.sampled_from([[], ["RELEASE/*"]]),
    branch_state=st.lists(st.sampled_from(BranchState), max_size=2),
    type=st.sampled_from([[], ["texture"]]),
    path=st.sampled_from([[], ["Content/**"], ["*.psd"]]),
    superseded=st.sampled_from([None, True, False]),
    older_than_days=st.one_of(st.none(), st.integers(0, 400)),
)


@st.composite
def policies(draw) -> Policy:
    rules = [
        Rule(
            name=f"rule {n}",
            when=when,
            storage_class=draw(st.sampled_from(StorageClass)),
            keep_on_disk=draw(st.booleans()),
        )
        for n, when in enumerate(draw(st.lists(matches, max_size=4)))
    ]
    return Policy(version=1, default=draw(st.sampled_from(StorageClass)), rules=rules)


@given(policies(), st.lists(references, min_size=1, max_size=6))
def test_the_warmest_reference_wins(policy, found):
    alone = [policy.judge([one], BIG, NOW) for one in found]
    together = policy.judge(found, BIG, NOW)
    assert together.storage_class.coldness == min(one.storage_class.coldness for one in alone)
    assert together.keep_on_disk == any(one.keep_on_disk for one in alone)
    assert policy.judge(reversed(found), BIG, NOW) == together


@given(policies(), st.lists(references, max_size=3), st.integers(0, SMALLEST_MOVED_BYTES - 1))
def test_small_objects_stay(policy, found, size_bytes):
    assert policy.judge(found, size_bytes, NOW) is None


@given(policies())
def test_what_nothing_refers_to_stays(policy):
    assert policy.judge([], BIG, NOW) is None


def reference(**changed) -> Reference:
    usual = {
        "project": "Hero",
        "branch": "release/1.0",
        "branch_states": frozenset({BranchState.RELEASED}),
        "asset_type": "texture",
        "path": "Content/Maps/a.uasset",
        "referenced_at": NOW - timedelta(days=100),
        "superseded": True,
    }
    return Reference(**(usual | changed))


@pytest.mark.parametrize(
    ("when", "other"),
    [
        ({"project": ["HE*"]}, {"project": "Villain"}),
        ({"branch": ["release/*"]}, {"branch": "main"}),
        ({"branch_state": ["released", "archived"]}, {"branch_states": frozenset({BranchState.ACTIVE})}),
        ({"type": ["mesh", "texture"]}, {"asset_type": "Texture"}),
        ({"path": ["Content/**"]}, {"path": "Source/a.uasset"}),
        ({"path": ["*.UASSET"]}, {"path": "Content/Maps/a.psd"}),
        ({"superseded": True}, {"superseded": False}),
        ({"superseded": False}, None),
        ({"older_than_days": 100}, {"referenced_at": NOW - timedelta(days=99, hours=23)}),
        ({"min_bytes": BIG}, None),
        ({"min_bytes": BIG + 1}, None),
        ({"max_bytes": BIG}, None),
        ({"max_bytes": BIG - 1}, None),
    ],
    ids=str,
)
def test_each_field_matches_what_it_says(when, other):
    match = Match.model_validate(when)
    expected = when not in ({"superseded": False}, {"min_bytes": BIG + 1}, {"max_bytes": BIG - 1})
    assert match.holds(reference(), BIG, NOW) is expected
    if other:
        assert not match.holds(reference(**other), BIG, NOW)


def test_the_first_rule_that_matches_decides():
    policy = Policy(
        version=1,
        rules=[
            Rule(name="all", storage_class=StorageClass.GLACIER_IR),
            Rule(name="never reached", storage_class=StorageClass.GLACIER),
        ],
    )
    verdict = policy.judge([reference()], BIG, NOW)
    assert verdict and verdict.storage_class is StorageClass.GLACIER_IR


GOOD = """\
version: 1
rules:
  - name: old
    when:
      older_than_days: 30
    storage_class: GLACIER
"""


@pytest.mark.parametrize(
    ("found", "instead", "told"),
    [
        ("older_than_days: 30", "older_than_days: -1", "p.yaml:5: rules[0].when.older_than_days: "),
        ("older_than_days: 30", "age: 30", "p.yaml:5: rules[0].when.age: Extra inputs"),
        ("older_than_days: 30", 'path: ["/a"]', "p.yaml:5: rules[0].when.path[0]: "),
        ("GLACIER", "FREEZER", "p.yaml:6: rules[0].storage_class: Input should be 'STANDARD'"),
        ("    storage_class: GLACIER\n", "", "p.yaml:3: rules[0].storage_class: Field required"),
        ("version: 1", "version: 2", "p.yaml:1: version: "),
        ("rules:", "rules: [", "p.yaml:3: this is not YAML: "),
        ("    storage_class:", "    name: new\n    storage_class:", "p.yaml:6: name: this field is given twice"),
        (GOOD, "- 1", "p.yaml:1: Input should be"),
        (GOOD, "", "p.yaml: the document is empty"),
        ("  - name", "  - {name: old, storage_class: GLACIER}\n  - name", "several rules have the name 'old'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(found, instead, told):
    assert parse_document(GOOD, Policy, "p.yaml").rules[0].name == "old"
    with pytest.raises(DocumentError) as raised:
        parse_document(GOOD.replace(found, instead), Policy, "p.yaml")
    assert told in str(raised.value)


def test_a_price_table_has_every_class(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("version: 1\ncurrency: EUR\nclasses:\n  STANDARD: {gib_month: 1}\n")
    with pytest.raises(DocumentError, match=r"prices of INTELLIGENT_TIERING, .* are missing"):
        load_prices(path)
    with pytest.raises(DocumentError, match="cannot be read"):
        load_prices(tmp_path / "none")


def test_what_the_examples_prices_say():
    prices = load_prices(None)
    assert prices.note == "example prices, not yours"
    assert prices.monthly(StorageClass.STANDARD, 10, 100 << 30) == pytest.approx(2.3)
    archived = (32 << 10) * 0.00099 + (8 << 10) * 0.023
    assert prices.monthly(StorageClass.DEEP_ARCHIVE, 1 << 30, 0) == round(archived, 2)
