"""Leases: one executor at a time, taken up again when it dies, and its late report refused."""

import time

import psycopg
import pytest


@pytest.fixture
def begun(merging):
    """A merge with one path and no conflict."""
    merging.submit("main", [["add", "a", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"]])
    return merging.begin("dev", "main")


def expire(api, job):
    """As if its executor had been silent for that long."""
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE merge_jobs SET leased_until = now() - interval '1 second' WHERE id = %s", (job["id"],))


def test_a_job_is_claimed_once_and_in_order(merging, begun):
    first = merging.claim(begun)
    assert (first["job_type"], first["attempt"], first["executor"]) == ("auto_integrate", 1, "test")
    assert merging.claim(begun) is None
    merging.step(first)
    assert merging.claim(begun)["job_type"] == "conflict_staging"


def test_what_can_be_claimed_is_listed_with_its_target(merging, begun):
    def listed():
        jobs = merging.ok("GET", "/merge-jobs", params={"limit": 1000})
        return [(job["job_type"], job["target_branch_id"]) for job in jobs if job["merge_id"] == begun["id"]]

    assert listed() == [("auto_integrate", merging.branches["main"])]
    merging.claim(begun)
    assert listed() == []


def test_a_dead_executors_job_is_taken_up_and_its_late_report_refused(api, merging, begun):
    dead = merging.claim(begun)
    expire(api, dead)
    alive = merging.claim(begun)
    assert (alive["id"], alive["attempt"]) == (dead["id"], 2)
    assert alive["fencing_number"] > dead["fencing_number"]
    for response in (
        merging.http.post(f"/merge-jobs/{dead['id']}/step", json={"fencing_number": dead["fencing_number"]}),
        merging.http.patch(f"/merge-jobs/{dead['id']}", json={"fencing_number": dead["fencing_number"]}),
        merging.http.patch(
            f"/merge-jobs/{dead['id']}",
            json={"fencing_number": dead["fencing_number"], "status": "failed", "error": "late"},
        ),
    ):
        assert response.status_code == 409
        assert response.json()["type"].endswith(":lease-lost")
    merging.step(alive)
    assert merging.work(begun)["status"] == "merged"


def test_a_lease_that_has_ended_is_lost_even_unclaimed(api, merging, begun):
    job = merging.claim(begun)
    expire(api, job)
    late = merging.http.post(f"/merge-jobs/{job['id']}/step", json={"fencing_number": job["fencing_number"]})
    assert late.status_code == 409
    assert merging.merge(begun)["target_at"] is None


def test_a_heartbeat_prolongs_the_lease(merging, begun):
    job = merging.claim(begun, lease_seconds=1)
    beat = {"fencing_number": job["fencing_number"], "lease_seconds": 600}
    assert merging.ok("PATCH", f"/merge-jobs/{job['id']}", json=beat)["leased_until"] > job["leased_until"]


def test_a_failure_is_tried_again_later_and_in_the_end_fails(api, merging, begun):
    for attempt in range(1, 6):
        job = merging.claim(begun)
        assert job["attempt"] == attempt
        report = {"fencing_number": job["fencing_number"], "status": "failed", "error": f"no disk {attempt}"}
        job = merging.ok("PATCH", f"/merge-jobs/{job['id']}", json=report)
        assert merging.claim(begun) is None
        with psycopg.connect(api.owner_url) as owner:
            owner.execute("UPDATE merge_jobs SET available_at = now() WHERE id = %s", (job["id"],))
    assert (job["status"], job["error"]) == ("failed", "no disk 5")
    assert merging.claim(begun) is None
    again = merging.ok("PATCH", f"/merge-jobs/{job['id']}", json={"status": "queued"})
    assert (again["status"], again["attempt"]) == ("queued", 0)
    assert merging.work(begun)["status"] == "merged"


def test_executors_that_die_again_and_again_fail_the_job(api, merging, begun):
    for _ in range(5):
        expire(api, merging.claim(begun))
    assert merging.claim(begun) is None
    job = merging.jobs(begun)["auto_integrate"]
    assert job["status"] == "failed"
    assert "died" in job["error"]


def test_a_step_taken_twice_is_taken_once(merging, begun):
    job = merging.claim(begun)
    merging.step(job)
    again = merging.http.post(f"/merge-jobs/{job['id']}/step", json={"fencing_number": job["fencing_number"]})
    assert again.status_code == 409
    merge = merging.work(begun)
    assert merge["status"] == "merged"
    assert merging.project.heads(merging.branches["main"])["a"][0] == 3


def test_cancelled_at_any_point_it_leaves_nothing(merging):
    merging.submit("main", [["add", "a", "1"], ["add", "b", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a", "2"], ["edit", "b", "2"]])
    merging.submit("main", [["edit", "a", "3"]])
    before = merging.heads("main")
    for steps in range(3):
        merge = merging.begin("dev", "main")
        for _ in range(steps):
            merging.step(merging.claim(merge), texts_tried=True)
        held = merging.claim(merge)
        cancelled = merging.ok("POST", f"/branch-merges/{merge['id']}/cancel")
        assert (cancelled["status"], cancelled["shelf_id"]) == ("cancelled", None)
        changelist = merging.ok("GET", f"/changelists/{merge['changelist_id']}")
        assert (changelist["status"], changelist["items_count"]) == ("abandoned", 0)
        assert {job["status"] for job in merging.jobs(merge).values()} <= {"failed", "completed"}
        assert merging.claim(merge) is None
        if held:
            late = merging.http.post(f"/merge-jobs/{held['id']}/step", json={"fencing_number": held["fencing_number"]})
            assert late.status_code == 409
    assert merging.heads("main") == before
    assert merging.ok("GET", f"/projects/{merging.project.id}/shelves")["items"] == []


def test_a_creator_who_left_cannot_merge_any_more(api, merging, begun):
    lead = merging.project.member("lead")
    ends = {"source_branch_id": merging.branches["dev"], "target_branch_id": merging.branches["main"]}
    made = lead.http.post("/branch-merges", json={"project_id": merging.project.id, **ends}).json()
    with psycopg.connect(api.owner_url) as owner:
        owner.execute("UPDATE users SET is_active = false WHERE id = %s", (lead.id,))
    merging.work(made)
    job = merging.jobs(made)["auto_integrate"]
    assert job["status"] == "failed"
    assert lead.name in job["error"]


def test_conflicts_are_shelved_side_by_side_and_their_owners_told(merging):
    artist = merging.project.member("contributor")
    merging.submit("main", [["add", "Hero/a.png", "1"], ["add", "plain", "1"]])
    merging.branch("dev")
    base = {"base_version": 1, "sha256": merging.put("2")}
    artist.http.put(f"/projects/{merging.project.id}/objects/{merging.put('2')}", content=b"2")
    theirs = merging.project.open(
        [{"action": "edit", "path": path, **base} for path in ("Hero/a.png", "plain")],
        merging.branches["dev"],
        artist.http,
    )
    assert artist.http.post(f"/changelists/{theirs}/submit").status_code == 200
    merging.submit("main", [["edit", "Hero/a.png", "3"], ["delete", "plain"]])
    merge = merging.work(merging.begin("dev", "main"))
    items = merging.ok("GET", f"/shelves/{merge['shelf_id']}/items")["items"]
    assert {item["path"]: merging.contents[item["sha256"]] for item in items} == {
        "Hero/a@source.png": "2",
        "Hero/a@target.png": "3",
        "plain@source": "2",
    }
    assert artist.name in merging.jobs(merge)["conflict_staging"]["result"]["owners"]
    events = merging.ok("GET", f"/projects/{merging.project.id}/events", params={"limit": 1000})["items"]
    told = [event["payload"] for event in events if event["kind"] == "merge.conflicts_staged"]
    assert [payload["shelf_id"] for payload in told] == [merge["shelf_id"]]


def test_a_text_that_was_merged_is_a_choice_like_others(merging):
    typemap = {"rules": [{"pattern": "*.ini", "mergeable": True}]}
    merging.ok("PUT", f"/projects/{merging.project.id}/typemap", json=typemap)
    merging.submit("main", [["add", "a.ini", "1"], ["add", "b.bin", "1"]])
    merging.branch("dev")
    merging.submit("dev", [["edit", "a.ini", "2"], ["edit", "b.bin", "2"]])
    merging.submit("main", [["edit", "a.ini", "3"], ["edit", "b.bin", "3"]])
    merge = merging.begin("dev", "main")
    job = merging.claim(merge)
    answer = merging.step(job)
    assert (answer["job"]["status"], [text["path"] for text in answer["texts"]]) == ("running", ["a.ini"])
    url = f"/merge-jobs/{job['id']}/texts/{answer['texts'][0]['id']}"
    zombie = merging.http.put(url, params={"fencing_number": job["fencing_number"] + 1}, content=b"no")
    assert zombie.status_code == 409
    sent = merging.http.put(url, params={"fencing_number": job["fencing_number"]}, content=b"2 and 3")
    assert sent.status_code == 200, sent.text
    assert sent.json()["resolution"] == "merged"
    assert merging.step(job, texts_tried=True)["job"]["status"] == "staged"
    merging.resolve(merge, "b.bin", "source")
    assert merging.work(merge)["status"] == "merged"
    version, _ = merging.project.heads(merging.branches["main"])["a.ini"]
    row = merging.ok("GET", f"/branches/{merging.branches['main']}/manifest")["items"][0]
    content = merging.http.get(f"/assets/{row['asset_id']}/versions/{version}/content")
    assert content.content == b"2 and 3"


def test_an_executor_settles_texts_of_its_own_merge_only(merging, new_merging):
    def conflicted(one) -> dict:
        typemap = {"rules": [{"pattern": "*.ini", "mergeable": True}]}
        one.ok("PUT", f"/projects/{one.project.id}/typemap", json=typemap)
        one.submit("main", [["add", "a.ini", "1"], ["add", "b.bin", "1"]])
        one.branch("dev")
        one.submit("dev", [["edit", "a.ini", "2"], ["edit", "b.bin", "2"]])
        one.submit("main", [["edit", "a.ini", "3"], ["edit", "b.bin", "3"]])
        return one.begin("dev", "main")

    elsewhere = new_merging()
    theirs = conflicted(elsewhere)
    elsewhere.step(elsewhere.claim(theirs))
    ours = conflicted(merging)
    job = merging.claim(ours)
    merging.step(job)

    def put(job: dict, conflict: dict) -> int:
        url = f"/merge-jobs/{job['id']}/texts/{conflict['id']}"
        return merging.http.put(url, params={"fencing_number": job["fencing_number"]}, content=b"mine").status_code

    assert put(job, elsewhere.conflicts(theirs)["a.ini"]) == 404
    assert put(job, merging.conflicts(ours)["b.bin"]) == 422
    merging.step(job, texts_tried=True)
    staging = merging.claim(ours)
    assert staging["job_type"] == "conflict_staging"
    assert put(staging, merging.conflicts(ours)["a.ini"]) == 422
    for one, merge in ((merging, ours), (elsewhere, theirs)):
        assert {conflict["resolution"] for conflict in one.conflicts(merge).values()} == {None}


def test_the_lease_ends_by_itself(merging, begun):
    job = merging.claim(begun, lease_seconds=1)
    deadline = time.monotonic() + 20
    while (taken := merging.claim(begun)) is None:
        assert time.monotonic() < deadline
    assert taken["id"] == job["id"]
