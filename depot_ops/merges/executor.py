"""Carries merge jobs out over REST: claims one, takes its steps, merges its texts, and keeps its lease meanwhile.

The work that has to be whole is the depot's: an executor may die anywhere, and another one goes on.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from threading import Event, Thread
from uuid import UUID

from pydantic import BaseModel

from depot_api.client import DepotClient, DepotError, OutcomeUnknown, ProblemError, Unreachable
from depot_api.client.models import ConflictSide, JobStatus, JobType, MergeConflict, MergeJob
from depot_ops.merges.texts import merge_texts

LEASE_SECONDS = 60
BEATS_IN_A_LEASE = 3  # one may get lost on the way
LEASE_LOST = "lease-lost"
MAX_ERROR_CHARACTERS = 2_000


class Outcome(StrEnum):
    """Given back: this executor could not go on, and the depot queues the job for later or gives it up.

    Lost: another executor has the job, or its merge was cancelled.
    """

    DONE = "done"
    FAILED = "failed"
    GIVEN_BACK = "given_back"
    LOST = "lost"


class JobReport(BaseModel):
    """What became of one claimed job."""

    outcome: Outcome
    job_id: UUID
    merge_id: UUID
    project_id: UUID
    job_type: JobType
    attempt: int
    job_status: JobStatus
    duration_seconds: float
    detail: str = ""


class Stopped(Exception):
    """The executor was asked to stop between two texts."""


def executor_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class Executor:
    """One job at a time. `stop` ends the work after the step, or the text, that is under way."""

    def __init__(
        self, depot: DepotClient, name: str, *, lease_seconds: int = LEASE_SECONDS, stop: Event | None = None
    ) -> None:
        self._depot = depot
        self._name = name
        self._lease_seconds = lease_seconds
        self._stop = stop or Event()

    def work(self, *, merge_id: UUID | None = None, job_id: UUID | None = None) -> Iterator[JobReport]:
        """Carry jobs out (of this merge, or just this one) until none can be claimed now. Raises DepotError."""
        while not self._stop.is_set():
            job = self._depot.claim_merge_job(self._name, self._lease_seconds, merge_id=merge_id, job_id=job_id)
            if job is None:
                return
            yield self._carry_out(job)

    def _carry_out(self, job: MergeJob) -> JobReport:
        begun = time.monotonic()
        left = job
        try:
            left = self._take_steps(job)
            outcome, detail = (Outcome.FAILED if left.status is JobStatus.FAILED else Outcome.DONE), left.error
        except Stopped:
            outcome, detail = self._give_back(job, f"The executor {self._name} was stopped.")
        except (Unreachable, OutcomeUnknown):
            raise
        except DepotError as error:
            outcome, detail = self._give_back(job, str(error))
        return JobReport(
            outcome=outcome,
            job_id=job.id,
            merge_id=job.merge_id,
            project_id=job.project_id,
            job_type=job.job_type,
            attempt=job.attempt,
            job_status=left.status,
            duration_seconds=round(time.monotonic() - begun, 3),
            detail=detail,
        )

    def _take_steps(self, job: MergeJob) -> MergeJob:
        step = self._depot.step_merge_job(job, self._lease_seconds)
        if step.job.status is JobStatus.RUNNING:
            self._merge_texts(job, step.texts)
            step = self._depot.step_merge_job(job, self._lease_seconds, texts_tried=True)
        return step.job

    def _give_back(self, job: MergeJob, reason: str) -> tuple[Outcome, str]:
        try:
            self._depot.fail_merge_job(job, reason[:MAX_ERROR_CHARACTERS])
        except ProblemError as problem:
            if problem.slug != LEASE_LOST:
                raise
            return Outcome.LOST, str(problem)
        return Outcome.GIVEN_BACK, reason

    def _merge_texts(self, job: MergeJob, texts: list[MergeConflict]) -> None:
        """Send those that can be merged, and leave the others to people."""
        with self._heartbeat(job) as lost:
            for text in texts:
                if self._stop.is_set():
                    raise Stopped
                if lost.is_set():
                    return  # the depot says so itself at the next step
                self._merge_text(job, text)

    def _merge_text(self, job: MergeJob, text: MergeConflict) -> None:
        if text.source is None or text.target is None:
            return
        base = self._read(job, text.base) if text.base else None
        merged = merge_texts(base, self._read(job, text.source), self._read(job, text.target))
        if merged is not None:
            self._depot.put_merged_text(job, text.id, merged)

    def _read(self, job: MergeJob, side: ConflictSide) -> bytes:
        return b"".join(self._depot.object_content(job.project_id, side.sha256))

    @contextmanager
    def _heartbeat(self, job: MergeJob) -> Iterator[Event]:
        """Keeps the lease; the event says that it could not be kept."""
        done, lost = Event(), Event()
        thread = Thread(target=self._beat, args=(job, done, lost), name="merge-heartbeat", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            done.set()
            thread.join()

    def _beat(self, job: MergeJob, done: Event, lost: Event) -> None:
        while not done.wait(self._lease_seconds / BEATS_IN_A_LEASE):
            try:
                self._depot.renew_merge_job(job, self._lease_seconds)
            except DepotError as error:
                if isinstance(error, ProblemError) and error.slug == LEASE_LOST:
                    lost.set()
                    return
                # What did not arrive is tried again with the next beat; the depot keeps the time.
