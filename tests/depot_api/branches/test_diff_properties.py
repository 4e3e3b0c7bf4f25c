"""Random histories of a family of branches: every diff equals that of the two trees as dicts."""

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = ["a", "b", "c", "d"]
PARENTS = {"main": None, "dev": "main", "feature": "dev", "release": "main"}

changes = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([b"red", b"green", None]), min_size=1)
steps = st.lists(st.tuples(st.sampled_from(list(PARENTS)), changes), min_size=1, max_size=7)


class Model:
    """Each branch as a list of (changelist, tree); a tree is path → content."""

    def __init__(self, project):
        self.project = project
        self.hashes = {content: project.put(content) for content in (b"red", b"green")}
        self.ids = {"main": project.main}
        self.points = {"main": [(0, {})]}

    def branch(self, name: str) -> None:
        if name in self.ids:
            return
        parent = PARENTS[name]
        self.branch(parent)
        body = {"project_id": self.project.id, "name": name, "parent_id": self.ids[parent]}
        self.ids[name] = self.project.http.post("/branches", json=body).json()["id"]
        self.points[name] = list(self.points[parent])

    def submit(self, name: str, changes) -> None:
        self.branch(name)
        versions = self.project.heads(self.ids[name])
        tree, items = dict(self.points[name][-1][1]), []
        for path, content in changes.items():
            if content is None and path not in tree:
                continue
            action = "delete" if content is None else "edit" if path in tree else "add"
            item = {"action": action, "path": path}
            item |= {"base_version": versions[path][0]} if path in tree else {}
            item |= {"sha256": self.hashes[content]} if content is not None else {}
            items.append(item)
            tree.pop(path, None)
            if content is not None:
                tree[path] = content
        if items:
            self.points[name].append((self.project.submit(items, self.ids[name]), tree))

    def diff(self, left, right) -> dict[str, tuple[str | None, str | None]]:
        paths = sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))
        return {path: (self.hashes.get(left.get(path)), self.hashes.get(right.get(path))) for path in paths}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_diffs_equal_the_model(new_project, steps):
    model = Model(new_project())
    for name, wanted in steps:
        model.submit(name, wanted)
    ends = [
        (name, *point) for name, points in model.points.items() for point in (points[0], points[-1], points[-2:][0])
    ]
    for (left, left_at, left_tree), (right, right_at, right_tree) in itertools.product(ends, ends):
        query = {"against": model.ids[left], "from": left_at, "to": right_at}
        answer = model.project.http.get(f"/branches/{model.ids[right]}/diff", params=query).json()
        found = {row["path"]: tuple(row[s] and row[s]["sha256"] for s in ("left", "right")) for row in answer["items"]}
        assert list(found.items()) == list(model.diff(left_tree, right_tree).items())
