"""Random histories of two branches against a slow and obvious model: the tree at every changelist."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CONTENTS = [b"red", b"green", b"blue"]
PATHS = ["a", "b", "d/a", "d/b"]

steps = st.lists(
    st.tuples(
        st.sampled_from(["main", "child"]),
        st.lists(
            st.tuples(st.sampled_from(PATHS), st.sampled_from([*range(len(CONTENTS)), None]), st.booleans()),
            min_size=1,
            max_size=4,
            unique_by=lambda change: change[0],
        ),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, branch_after=st.integers(0, 8))
def test_heads_equal_the_model(new_project, steps, branch_after):
    project = new_project()
    hashes = [project.put(content) for content in CONTENTS]
    trees: dict[str, dict[str, tuple[int, str]]] = {"main": {}}
    history: dict[str, dict[int, dict[str, tuple[int, str]]]] = {"main": {0: {}}}
    branches, last_version, submitted = {"main": project.main}, dict.fromkeys(PATHS, 0), 0
    for index, (branch, changes) in enumerate(steps):
        if index >= branch_after and "child" not in branches:
            made = project.http.post("/branches", json={"project_id": project.id, "name": "child"})
            branches["child"] = made.json()["id"]
            trees["child"] = dict(trees["main"])
            history["child"] = dict(history["main"])
        if branch not in branches:
            continue
        tree, items, stale = dict(trees[branch]), [], False
        for path, content, wrong_base in changes:
            base = tree.get(path, (None, ""))[0]
            if content is None and base is None:
                continue
            action = "delete" if content is None else "add" if base is None else "edit"
            claimed = base + 1 if wrong_base and base else base
            stale |= claimed != base
            item = {"action": action, "path": path}
            item |= {"base_version": claimed} if claimed else {}
            item |= {"sha256": hashes[content]} if content is not None else {}
            items.append(item)
            if content is None:
                del tree[path]
            else:
                tree[path] = (last_version[path] + 1, hashes[content])
        if not items:
            continue
        response = project.http.post(f"/changelists/{project.open(items, branches[branch])}/submit")
        if stale:
            assert response.status_code == 409
            continue
        assert response.status_code == 200, response.text
        submitted += 1
        assert response.json()["number"] == submitted
        for path, (version, _) in tree.items():
            last_version[path] = max(last_version[path], version)
        trees[branch] = tree
        history[branch][submitted] = tree
    for name, branch_id in branches.items():
        assert project.heads(branch_id) == trees[name]
        for number, tree in history[name].items():
            assert project.heads(branch_id, at=number) == tree
