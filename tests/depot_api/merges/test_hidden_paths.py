"""What path permissions hide is not told by a merge's conflicts."""

import psycopg
import pytest


@pytest.fixture
def conflicted(merging):
    """A merge with two conflicts: one of a file that the source has moved to where nobody may look, and a plain one."""
    merging.submit("main", [["add", "Open/x", "1"], ["add", "b", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["move", "Open/x", "Secret/x"], ["edit", "b", "2"]])
    merging.submit("main", [["edit", "Open/x", "3"], ["edit", "b", "3"]])
    rules = {"rules": [{"pattern": "Secret/**", "access": "none"}]}
    merging.ok("PUT", f"/projects/{merging.project.id}/path-permissions", json=rules)
    merge = merging.work(merging.begin("dev", "main"))
    assert merging.conflicts(merge).keys() == {"Open/x", "b"}
    return merge


def test_a_conflict_is_shown_to_whom_all_of_its_paths_are(api, merging, conflicted):
    artist = merging.project.member("contributor")
    hidden = merging.conflicts(conflicted)["Open/x"]["id"]
    seen = artist.http.get(f"/branch-merges/{conflicted['id']}/conflicts")
    assert [one["path"] for one in seen.json()["items"]] == ["b"]
    assert "Secret" not in seen.text
    assert artist.http.get(f"/merge-conflicts/{hidden}").status_code == 404
    assert artist.http.patch(f"/merge-conflicts/{hidden}", json={"resolution": "target"}).status_code == 404
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (artist.id,))
        assert service.execute("SELECT path FROM merge_conflicts").fetchall() == [("b",)]


def test_a_merge_waits_for_conflicts_that_the_asker_is_not_shown(merging, conflicted):
    artist = merging.project.member("contributor")
    counts = artist.http.get(f"/branch-merges/{conflicted['id']}").json()
    assert (counts["conflicts_count"], counts["unresolved_count"]) == (2, 2)
    choice = {"pattern": "**", "resolution": "target"}
    resolved = artist.http.post(f"/branch-merges/{conflicted['id']}/conflicts", json=choice).json()
    assert resolved == {"resolved_count": 1, "unresolved_count": 1}
    told = merging.ok("GET", f"/projects/{merging.project.id}/events", params={"limit": 1000})["items"]
    assert told[-1]["kind"] == "merge.conflicts_resolved", "no job is queued yet"
    merging.resolve(conflicted, "Open/x", "source")
    assert merging.work(conflicted)["status"] == "merged"
    assert merging.heads("main") == {"Secret/x": "1", "b": "3"}


def test_why_a_job_failed_is_told_to_those_who_see_every_path(merging, conflicted):
    artist, manager = merging.project.member("contributor"), merging.project.member("manager")
    merging.resolve(conflicted, "b", "source")
    merging.resolve(conflicted, "Open/x", "source")
    job = merging.claim(conflicted)
    report = {"fencing_number": job["fencing_number"], "status": "failed", "error": "'Secret/x' is locked"}
    merging.ok("PATCH", f"/merge-jobs/{job['id']}", json=report)
    urls = (
        f"/branch-merges/{conflicted['id']}/jobs",
        f"/merge-jobs/{job['id']}",
        f"/projects/{merging.project.id}/events?limit=1000",
    )
    assert ["is locked" in manager.http.get(url).text for url in urls] == [True, True, True]
    assert ["is locked" in artist.http.get(url).text for url in urls] == [False, False, False]
