"""Rules of the bucket say what the policy says, or are refused; and nobody else's are touched."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot_ops.places import PlaceError
from depot_ops.tiering.bucket import open_bucket
from depot_ops.tiering.classes import SMALLEST_MOVED_BYTES, StorageClass
from depot_ops.tiering.lifecycle import LifecycleRefused, archive_tiers, configure, lifecycle_rules
from depot_ops.tiering.policy import ArchiveTiers, BranchState, Match, Policy, Reference, Rule

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PREFIX = "depot/objects/"


def policy(*rules: tuple[dict, str], **more) -> Policy:
    made = [
        Rule(name=f"rule {n}", when=Match.model_validate(when), storage_class=StorageClass(into))
        for n, (when, into) in enumerate(rules)
    ]
    return Policy(version=1, rules=made, **more)


def under(rules: list[dict], size_bytes: int, age_days: int) -> str:
    """What S3 makes of an object: of the rules whose filter fits, the last transition whose day has come."""
    fitting = [
        rule
        for rule in rules
        if rule["Filter"]["And"]["ObjectSizeGreaterThan"]
        < size_bytes
        < rule["Filter"]["And"].get("ObjectSizeLessThan", size_bytes + 1)
    ]
    assert len(fitting) <= 1
    steps = [step for rule in fitting for step in rule["Transitions"] if step["Days"] <= age_days]
    return steps[-1]["StorageClass"] if steps else "STANDARD"


LIMITS = st.one_of(st.none(), st.sampled_from([0, SMALLEST_MOVED_BYTES, 200_000, 200_001, 1 << 30]))
matches = st.builds(
    Match,
    older_than_days=st.one_of(st.none(), st.sampled_from([0, 30, 60, 90, 365])),
    min_bytes=LIMITS,
    max_bytes=LIMITS,
)


@given(
    st.lists(st.tuples(matches, st.sampled_from(StorageClass)), max_size=4),
    st.sampled_from(StorageClass),
    st.sampled_from([131_071, 131_072, 199_999, 200_000, 200_001, 200_002, 1 << 30, (1 << 30) + 1]),
    st.sampled_from([0, 29, 30, 59, 60, 90, 364, 365, 1000]),
)
def test_rules_do_what_the_policy_says_or_are_refused(pairs, default, size_bytes, age_days):
    made = Policy(
        version=1,
        default=default,
        rules=[Rule(name=str(n), when=when, storage_class=into) for n, (when, into) in enumerate(pairs)],
    )
    try:
        rules = lifecycle_rules(made, PREFIX)
    except LifecycleRefused:
        return
    reference = Reference(
        "p", "b", frozenset({BranchState.ACTIVE}), "", "a", NOW - timedelta(days=age_days), superseded=False
    )
    verdict = made.judge([reference], size_bytes, NOW)
    assert under(rules, size_bytes, age_days) == (verdict.storage_class if verdict else "STANDARD")


def test_a_usual_policy():
    rules = lifecycle_rules(
        policy(
            ({"older_than_days": 365, "min_bytes": 1 << 20}, "DEEP_ARCHIVE"), ({"older_than_days": 30}, "STANDARD_IA")
        ),
        PREFIX,
    )
    assert [rule["Transitions"] for rule in rules] == [
        [{"Days": 30, "StorageClass": "STANDARD_IA"}],
        [{"Days": 30, "StorageClass": "STANDARD_IA"}, {"Days": 365, "StorageClass": "DEEP_ARCHIVE"}],
    ]
    assert [rule["Filter"]["And"] for rule in rules] == [
        {"Prefix": PREFIX, "ObjectSizeGreaterThan": (128 << 10) - 1, "ObjectSizeLessThan": 1 << 20},
        {"Prefix": PREFIX, "ObjectSizeGreaterThan": (1 << 20) - 1},
    ]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (policy(({"type": ["texture"], "older_than_days": 9}, "GLACIER")), "rule 'rule 0': when.type: S3 cannot ask"),
        (policy(({"branch_state": ["archived"]}, "GLACIER")), "rule 'rule 0': when.branch_state: "),
        (policy(({"older_than_days": 9}, "STANDARD"), default="GLACIER"), "'rule 0': STANDARD from day 9 is warmer"),
        (
            policy(({"older_than_days": 60}, "STANDARD_IA"), ({"older_than_days": 9}, "INTELLIGENT_TIERING")),
            "'rule 0': S3 moves nothing from INTELLIGENT_TIERING to STANDARD_IA",
        ),
        (policy(({"older_than_days": 29}, "STANDARD_IA")), "'rule 0': S3 moves nothing to STANDARD_IA before day 30"),
        (
            policy(({"older_than_days": 50}, "GLACIER"), ({"older_than_days": 30}, "STANDARD_IA")),
            "'rule 0': S3 keeps objects in STANDARD_IA for 30 days: GLACIER is possible from day 60",
        ),
    ],
)
def test_what_rules_cannot_do_is_refused_by_name(made, told):
    with pytest.raises(LifecycleRefused) as raised:
        lifecycle_rules(made, PREFIX)
    assert told in str(raised.value)


FOREIGN = [
    {
        "ID": "logs of somebody",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "Expiration": {"Days": 7},
    },
    {
        "ID": "uploads that never ended",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
    },
]


def test_in_a_real_bucket(shelf):
    """Against moto, which forgets the sizes of filters."""
    shelf.client.put_bucket_lifecycle_configuration(Bucket=shelf.name, LifecycleConfiguration={"Rules": FOREIGN})
    before = shelf.bucket.lifecycle_rules()
    rules = lifecycle_rules(policy(({"older_than_days": 90}, "GLACIER")), shelf.bucket.objects_prefix)
    change = configure(shelf.bucket, rules, None, write=True)
    assert (change.rules_changed, change.foreign_rules, change.archive_tiers_changed) == (True, 2, False)
    now = shelf.bucket.lifecycle_rules()
    assert now[:2] == before
    assert now[2]["Transitions"] == [{"Days": 90, "StorageClass": "GLACIER"}]
    configure(shelf.bucket, [], None, write=True)
    assert shelf.bucket.lifecycle_rules() == before


def test_a_server_that_keeps_no_archive_tiers_is_told_of(shelf):
    made = policy(intelligent_tiering=ArchiveTiers(archive_access_days=90))
    with pytest.raises(PlaceError):
        configure(shelf.bucket, [], archive_tiers(made, shelf.bucket.objects_prefix), write=True)


def test_applied_once_and_no_more(configuration):
    bucket = open_bucket("s3://somewhere/depot")
    bucket.put_lifecycle_rules(FOREIGN)
    made = policy(
        ({"older_than_days": 200, "min_bytes": 1 << 20}, "GLACIER"),
        ({"older_than_days": 30}, "INTELLIGENT_TIERING"),
        intelligent_tiering=ArchiveTiers(archive_access_days=90, deep_archive_access_days=180),
    )
    wanted = lifecycle_rules(made, bucket.objects_prefix), archive_tiers(made, bucket.objects_prefix)
    configuration.writes.clear()
    assert not configure(bucket, *wanted, write=False).is_none
    assert configuration.writes == []
    told = configure(bucket, *wanted, write=True)
    assert told.rules == [
        "objects of 131,072 to 1,048,575 bytes: INTELLIGENT_TIERING from day 30",
        "objects of 1,048,576 and more bytes: INTELLIGENT_TIERING from day 30, GLACIER from day 200",
    ]
    assert told.archive_tiers == ["ARCHIVE_ACCESS after 90 days", "DEEP_ARCHIVE_ACCESS after 180 days"]
    assert len(configuration.writes) == 2
    assert configure(bucket, *wanted, write=True).is_none
    assert len(configuration.writes) == 2
    assert bucket.lifecycle_rules()[:2] == FOREIGN


def test_another_depot_in_the_bucket_keeps_its_rules(configuration):
    one, other = open_bucket("s3://somewhere/one"), open_bucket("s3://somewhere/other")
    made = policy(({"older_than_days": 30}, "GLACIER"), intelligent_tiering=ArchiveTiers(archive_access_days=90))
    for bucket in (one, other):
        wanted = lifecycle_rules(made, bucket.objects_prefix), archive_tiers(made, bucket.objects_prefix)
        configure(bucket, *wanted, write=True)
    assert len(one.lifecycle_rules()) == 2
    configure(one, [], None, write=True)
    assert [rule["Filter"]["And"]["Prefix"] for rule in one.lifecycle_rules()] == ["other/objects/"]
    assert [name.split()[0] for name in configuration.documents] == ["lifecycle", "tiering"]
    configure(other, [], None, write=True)
    assert configuration.documents == {}
