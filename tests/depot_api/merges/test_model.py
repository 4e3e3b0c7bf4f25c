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
    """Every commit with its whole state, and what it moved: path → new path."""

    states: list[State] = field(default_factory=lambda: [{}])
    moves: list[dict[str, str]] = field(default_factory=lambda: [{}])
    # The first parent is the branch's own; the others were merged.
    parents: list[list[int]] = field(default_factory=lambda: [[]])
    heads: dict[str, int] = field(default_factory=lambda: {"main": 0})

    def commit(self, branch: str, state: State, moves: dict[str, str], *merged: int) -> None:
        self.states.append(state)
        self.moves.append(moves)
        self.parents.append([self.heads[branch], *merged])
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

    def went(self, commit: int) -> dict[str, str]:
        """Of paths that are gone, but were moved when they went: where that file is now."""
        if not self.parents[commit]:
            return {}
        before = self.parents[commit][0]
        now, moves = self.states[commit], self.moves[commit]
        places = {path: moves.get(place, place) for path, place in self.went(before).items()} | moves
        return {path: place for path, place in places.items() if path not in now and place in now}

    def merge(self, source: str, target: str, choices: dict[str, str]) -> set[str]:
        """The paths in conflict; each is settled as `choices` says: source or target."""
        head, onto = self.heads[source], self.heads[target]
        theirs, ours = self.states[head], self.states[onto]
        base = self.base_state(self.bases(self.ancestors(head), self.ancestors(onto)))
        files = moved_files(base, theirs, ours, self.went(head), self.went(onto))
        moved = {path for file in files for path in file if path}
        merged, conflicts = three_way(*(without(state, moved) for state in (base, ours, theirs)))
        for path in conflicts:
            chosen = (theirs if choices[path] == "source" else ours).get(path)
            merged.pop(path, None)
            if chosen is not None:
                merged[path] = chosen
        moves = {}
        for path, there, here in files:
            at_source = (there, theirs[there]) if there else None
            at_target = (here, ours[here]) if here else None
            named, takes = one_file((path, base[path]), at_source, at_target)
            if named:
                conflicts.add(named)
                takes = choices[named] == "source"
            if landed := at_source if takes else at_target:
                merged[landed[0]] = landed[1]
            if takes and there and here and there not in (path, here):
                moves[here] = there
        self.commit(target, merged, moves, head)
        return conflicts


def without(state: State, paths: set[str]) -> State:
    return {path: content for path, content in state.items() if path not in paths}


File = tuple[str, str]


def moved_files(
    base: State, theirs: State, ours: State, they_moved: dict[str, str], we_moved: dict[str, str]
) -> list[tuple[str, str | None, str | None]]:
    """(path in the base, path at the source, path at the target) of what a side has moved to where nothing else was."""
    found = []
    for path in base:
        there, here = they_moved.get(path), we_moved.get(path)
        if there in base or (there in ours and there != here):
            there = None
        if here in base or (here in theirs and here != they_moved.get(path)):
            here = None
        if there or here:
            found.append((path, there or (path if path in theirs else None), here or (path if path in ours else None)))
    return found


def one_file(was: File, theirs: File | None, ours: File | None) -> tuple[str | None, bool]:
    """The path of a conflict, or else whether the source's is taken."""
    if theirs and ours and theirs[0] == ours[0]:
        if theirs[1] in (was[1], ours[1]):
            return None, False
        return (None, True) if ours[1] == was[1] else (theirs[0], False)
    if theirs == was:
        return None, False
    if ours == was and theirs is not None:
        return None, True
    return was[0], False


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
PLACES = (*PATHS, "d", "e")

branches, paths, places = (st.sampled_from(names) for names in (BRANCHES, PATHS, PLACES))
contents = st.sampled_from(["1", "2", "3"])
changes = st.tuples(st.just("change"), branches, paths, st.one_of(st.none(), contents))
moves = st.tuples(st.just("move"), branches, places, places, st.one_of(st.none(), contents))
merges = st.tuples(
    st.just("merge"),
    st.permutations(BRANCHES).map(lambda names: (names[0], names[1])),
    st.fixed_dictionaries({path: st.sampled_from(["source", "target"]) for path in PLACES}),
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
@given(history=st.lists(st.one_of(changes, moves, merges, merges), min_size=6, max_size=14))
def test_any_history_merges_as_the_model_does(new_merging, history):
    merging, model = new_merging(), Model()
    merging.submit("main", [["add", path, "0"] for path in PATHS])
    model.commit("main", dict.fromkeys(PATHS, "0"), {})
    for name in BRANCHES[1:]:
        merging.branch(name)
        model.heads[name] = model.heads["main"]
    run = {"change": run_change, "move": run_move, "merge": run_merge}
    for step, *arguments in history:
        note(f"{step} {arguments}")
        run[step](merging, model, *arguments)
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
    model.commit(branch, state, {})


def run_move(merging, model, branch, path, place, content):
    state = dict(model.state(branch))
    if path not in state or place in state:
        return
    content = content or state[path]
    merging.submit(branch, [["move", path, place, content]])
    del state[path]
    model.commit(branch, state | {place: content}, {path: place})


def run_merge(merging, model, ends, choices):
    conflicts = model.merge(*ends, choices)
    merge = merging.work(merging.begin(*ends, description=secrets.token_hex(4)))
    assert set(merging.conflicts(merge)) == conflicts
    for path in conflicts:
        merging.resolve(merge, path, choices[path])
    assert merging.work(merge)["status"] == "merged"
