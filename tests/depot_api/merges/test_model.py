"""Random histories of branches and merges, beside a model that is slow and obvious."""

import os
import secrets
from dataclasses import dataclass, field

from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

State = dict[str, str]
DISPUTED = "what two older merges disagreed about"


@dataclass
class Model:
    states: list[State] = field(default_factory=lambda: [{}])
    parents: list[set[int]] = field(default_factory=lambda: [set()])
    heads: dict[str, int] = field(default_factory=lambda: {"main": 0})

    def commit(self, branch: str, state: State, *merged: int) -> None:
        self.states.append(state)
        self.parents.append({self.heads[branch], *merged})
        self.heads[branch] = len(self.states) - 1

    def state(self, branch: str) -> State:
        return self.states[self.heads[branch]]

    def ancestors(self, commit: int) -> set[int]:
        return {commit}.union(*(self.ancestors(parent) for parent in self.parents[commit]))

    def bases(self, left: set[int], right: set[int]) -> list[int]:
        common = left & right
        return [one for one in common if not any(one in self.ancestors(other) for other in common - {one})]

    def base_state(self, bases: list[int]) -> State:
        first, *others = bases
        state, known = self.states[first], self.ancestors(first)
        for other in others:
            older = self.base_state(self.bases(known, self.ancestors(other)))
            state, conflicts = three_way(older, state, self.states[other])
            state |= dict.fromkeys(conflicts, DISPUTED)
            known |= self.ancestors(other)
        return state

    def merge(self, source: str, target: str, choices: dict[str, str]) -> set[str]:
        """The paths in conflict; each is settled as `choices` says: source or target."""
        theirs, ours = self.heads[source], self.heads[target]
        base = self.base_state(self.bases(self.ancestors(theirs), self.ancestors(ours)))
        merged, conflicts = three_way(base, self.states[ours], self.states[theirs])
        for path in conflicts:
            chosen = (self.states[theirs] if choices[path] == "source" else self.states[ours]).get(path)
            merged.pop(path, None)
            if chosen is not None:
                merged[path] = chosen
        self.commit(target, merged, theirs)
        return conflicts


def three_way(base: State, ours: State, theirs: State) -> tuple[State, set[str]]:
    merged, conflicts = dict(ours), set()
    for path in base.keys() | ours.keys() | theirs.keys():
        was, mine, other = base.get(path), ours.get(path), theirs.get(path)
        if other in (was, mine):
            continue
        if mine != was:
            conflicts.add(path)
        elif other is None:
            del merged[path]
        else:
            merged[path] = other
    return merged, conflicts


BRANCHES = ("main", "left", "right")
PATHS = ("a", "b", "c")

changes = st.tuples(
    st.just("change"), st.sampled_from(BRANCHES), st.sampled_from(PATHS), st.sampled_from([None, "1", "2", "3"])
)
merges = st.tuples(
    st.just("merge"),
    st.permutations(BRANCHES).map(lambda names: (names[0], names[1])),
    st.fixed_dictionaries({path: st.sampled_from(["source", "target"]) for path in PATHS}),
)


ALL_OF_THE_SOURCE = dict.fromkeys(PATHS, "source")
# Merges that change nothing, after each of which a branch knows more than before.
NOTHING_NEW = [
    *(("merge", ends, ALL_OF_THE_SOURCE) for ends in (("main", "left"), ("left", "main"), ("right", "left"))),
    ("change", "main", "a", None),
    ("merge", ("left", "right"), ALL_OF_THE_SOURCE),
]

# `make torture` takes hundreds.
HISTORIES = int(os.environ.get("MERGE_HISTORIES", "6"))


@settings(
    max_examples=HISTORIES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@example(history=NOTHING_NEW)
@given(history=st.lists(st.one_of(changes, merges, merges), min_size=6, max_size=14))
def test_any_history_merges_as_the_model_does(new_merging, history):
    merging, model = new_merging(), Model()
    merging.submit("main", [["add", path, "0"] for path in PATHS])
    model.commit("main", dict.fromkeys(PATHS, "0"))
    for name in BRANCHES[1:]:
        merging.branch(name)
        model.heads[name] = model.heads["main"]
    for step in history:
        note(str(step))
        if step[0] == "merge":
            run_merge(merging, model, *step[1:])
        else:
            run_change(merging, model, *step[1:])
        for name in BRANCHES:
            assert merging.heads(name) == model.state(name), name


def run_change(merging, model, branch, path, content):
    state = dict(model.state(branch))
    if content == state.get(path):
        return
    if content is None:
        merging.submit(branch, [["delete", path]])
        del state[path]
    else:
        merging.submit(branch, [["edit" if path in state else "add", path, content]])
        state[path] = content
    model.commit(branch, state)


def run_merge(merging, model, ends, choices):
    conflicts = model.merge(*ends, choices)
    merge = merging.work(merging.begin(*ends, description=secrets.token_hex(4)))
    assert set(merging.conflicts(merge)) == conflicts
    for path in conflicts:
        merging.resolve(merge, path, choices[path])
    assert merging.work(merge)["status"] == "merged"
