"""Lifecycle rules of the bucket, made from the policy: what S3 can do by itself, and by name what it cannot.

S3 knows an object's key, size and the day it was written. So rules by size and age can be handed over; a rule that
asks what refers to the content cannot, for the key of an object is its hash. Ages count from when the object was
written, not from its last reference, and nothing ever goes back up.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from depot_ops.places import PlaceError
from depot_ops.tiering.bucket import TieredBucket
from depot_ops.tiering.classes import SMALLEST_MOVED_BYTES, StorageClass
from depot_ops.tiering.policy import Match, Policy, Rule

if TYPE_CHECKING:
    from types_boto3_s3.literals import TransitionStorageClassType
    from types_boto3_s3.type_defs import (
        IntelligentTieringConfigurationTypeDef,
        LifecycleRuleFilterTypeDef,
        LifecycleRuleTypeDef,
        TieringTypeDef,
        TransitionTypeDef,
    )

NAME = "asset-depot-tiering"
# Of a match, what a lifecycle rule can ask as well.
_EXPRESSIBLE = {"older_than_days", "min_bytes", "max_bytes"}
# S3 takes an object neither into STANDARD_IA nor out of it sooner.
IA_DAYS = 30


class LifecycleRefused(Exception):
    """The policy says what lifecycle rules cannot; the message has a line for each rule and field."""


class LifecycleChange(BaseModel):
    """What applying the policy does to the bucket's configuration."""

    rules: list[str]
    """What our rules say, in words."""
    rules_changed: bool
    foreign_rules: int
    """Of others; they stay as they are."""
    archive_tiers: list[str]
    archive_tiers_changed: bool

    @property
    def is_none(self) -> bool:
        return not (self.rules_changed or self.archive_tiers_changed)


def lifecycle_rules(policy: Policy, prefix: str) -> "list[LifecycleRuleTypeDef]":
    """Rules that do what the policy says to objects below `prefix`. Raises LifecycleRefused.

    Sizes are cut where any rule's limit lies. Within a piece the first rule that matches is known for every age.
    """
    if wrong := [line for rule in policy.rules for line in _inexpressible(rule)]:
        raise LifecycleRefused(
            "\n".join([*wrong, "Lifecycle rules know size and age only. Set TIER_MODE=explicit, or change the policy."])
        )
    cuts = {SMALLEST_MOVED_BYTES}
    for rule in policy.rules:
        cuts |= {rule.when.min_bytes or 0, rule.when.max_bytes + 1 if rule.when.max_bytes is not None else 0}
    starts = [*sorted(cut for cut in cuts if cut >= SMALLEST_MOVED_BYTES), None]
    rules: list[LifecycleRuleTypeDef] = []
    for start, end in pairwise(starts):
        assert start is not None, "only the last piece has no end"
        if transitions := _transitions(policy, start):
            rules.append(
                {
                    "ID": f"{name_of(prefix)}-{start}",
                    "Status": "Enabled",
                    "Filter": _filter(prefix, start, end),
                    "Transitions": transitions,
                }
            )
    return rules


def _inexpressible(rule: Rule) -> list[str]:
    asked = [name for name in Match.model_fields if name in rule.when.model_fields_set - _EXPRESSIBLE]
    return [f"rule {rule.name!r}: when.{name}: S3 cannot ask this of an object" for name in asked]


def _filter(prefix: str, start: int, end: int | None) -> "LifecycleRuleFilterTypeDef":
    """Both limits exclude themselves."""
    if end is None:
        return {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": start - 1}}
    return {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": start - 1, "ObjectSizeLessThan": end}}


def _transitions(policy: Policy, size_bytes: int) -> "list[TransitionTypeDef]":
    """Of objects from this size to the next cut: at which age each goes where. Raises LifecycleRefused."""
    fitting = [rule for rule in policy.rules if _fits(rule.when, size_bytes)]
    ages = sorted({0} | {rule.when.older_than_days or 0 for rule in fitting})
    found: list[TransitionTypeDef] = []
    now, since = StorageClass.STANDARD, 0
    for age in ages:
        rule = next((rule for rule in fitting if (rule.when.older_than_days or 0) <= age), None)
        wanted = rule.storage_class if rule else policy.default
        if wanted is now:
            continue
        name = f"rule {rule.name!r}" if rule else "default"
        _require_possible(name, now, wanted, age, since)
        found.append({"Days": age, "StorageClass": cast("TransitionStorageClassType", wanted.value)})
        now, since = wanted, age
    return found


def _fits(when: Match, size_bytes: int) -> bool:
    return (when.min_bytes or 0) <= size_bytes and (when.max_bytes is None or size_bytes <= when.max_bytes)


def _require_possible(name: str, now: StorageClass, wanted: StorageClass, age: int, since: int) -> None:
    if wanted.coldness < now.coldness:
        raise LifecycleRefused(
            f"{name}: {wanted} from day {age} is warmer than {now}, where objects lie by then. Lifecycle rules never"
            " go up: order the rules so that older is colder, or set TIER_MODE=explicit."
        )
    if wanted is StorageClass.STANDARD_IA and age < IA_DAYS:
        raise LifecycleRefused(f"{name}: S3 moves nothing to {wanted} before day {IA_DAYS}: set older_than_days")
    if (now, wanted) == (StorageClass.INTELLIGENT_TIERING, StorageClass.STANDARD_IA):
        raise LifecycleRefused(f"{name}: S3 moves nothing from {now} to {wanted}: leave one of them out")
    if now is StorageClass.STANDARD_IA and age - since < IA_DAYS:
        raise LifecycleRefused(
            f"{name}: S3 keeps objects in {now} for {IA_DAYS} days: {wanted} is possible from day {since + IA_DAYS}"
        )


def archive_tiers(policy: Policy, prefix: str) -> "IntelligentTieringConfigurationTypeDef | None":
    """When Intelligent-Tiering archives what lies below `prefix`; None: never."""
    asked = policy.intelligent_tiering
    if asked is None:
        return None
    tierings: list[TieringTypeDef] = []
    if asked.archive_access_days is not None:
        tierings.append({"Days": asked.archive_access_days, "AccessTier": "ARCHIVE_ACCESS"})
    if asked.deep_archive_access_days is not None:
        tierings.append({"Days": asked.deep_archive_access_days, "AccessTier": "DEEP_ARCHIVE_ACCESS"})
    return {"Id": name_of(prefix), "Filter": {"Prefix": prefix}, "Status": "Enabled", "Tierings": tierings}


def name_of(prefix: str) -> str:
    """What we call what is ours. By a digest: S3 bounds lengths and signs, and two depots can share a bucket."""
    return f"{NAME}-{hashlib.sha256(prefix.encode()).hexdigest()[:16]}"


def configure(
    bucket: TieredBucket,
    rules: "Sequence[LifecycleRuleTypeDef]",
    tiers: "IntelligentTieringConfigurationTypeDef | None",
    *,
    write: bool,
) -> LifecycleChange:
    """Make these the bucket's, in place of what was ours before; without `write` only tell what would change.

    Rules of others are put back as they were read. S3 takes all rules of a bucket at once, so nobody else should change
    them in that moment. Raises PlaceError.
    """
    name = name_of(bucket.objects_prefix)
    there, tiers_there = bucket.lifecycle_rules(), bucket.archive_tiers(name)
    foreign = [rule for rule in there if not rule.get("ID", "").startswith(name)]
    ours = [rule for rule in there if rule.get("ID", "").startswith(name)]
    change = LifecycleChange(
        rules=[_told(rule) for rule in rules],
        rules_changed=_comparable(ours, "Transitions") != _comparable(rules, "Transitions"),
        foreign_rules=len(foreign),
        archive_tiers=[f"{tier['AccessTier']} after {tier['Days']} days" for tier in tiers["Tierings"]]
        if tiers
        else [],
        archive_tiers_changed=_comparable([tiers_there], "Tierings") != _comparable([tiers], "Tierings"),
    )
    if write and change.rules_changed:
        # What is read can be written; the two types differ in lists and sequences only.
        bucket.put_lifecycle_rules([*cast("list[LifecycleRuleTypeDef]", foreign), *rules])
    if write and change.archive_tiers_changed:
        _put_tiers(bucket, name, tiers)
    return change


def _put_tiers(bucket: TieredBucket, name: str, tiers: "IntelligentTieringConfigurationTypeDef | None") -> None:
    """Not every server has the feature, and some of those that have not say nothing."""
    if tiers is None:
        bucket.delete_archive_tiers(name)
        return
    bucket.put_archive_tiers(tiers)
    if bucket.archive_tiers(name) is None:
        raise PlaceError(
            f"{bucket} did not keep the Intelligent-Tiering configuration: its server seems not to have that."
            " Take intelligent_tiering out of the policy."
        )


def _comparable(documents: Sequence[Mapping[str, Any] | None], steps: str) -> list[Mapping[str, Any]]:
    """Whatever order the server gives them, and their steps, in."""
    found = [{**one, steps: sorted(one.get(steps, ()), key=lambda step: step["Days"])} for one in documents if one]
    return sorted(found, key=lambda one: str(one.get("ID")))


def _told(rule: "LifecycleRuleTypeDef") -> str:
    sizes = rule["Filter"]["And"]
    end = f" to {sizes['ObjectSizeLessThan'] - 1:,}" if "ObjectSizeLessThan" in sizes else " and more"
    steps = ", ".join(f"{step['StorageClass']} from day {step['Days']}" for step in rule["Transitions"])
    return f"objects of {sizes['ObjectSizeGreaterThan'] + 1:,}{end} bytes: {steps}"
