"""Assisted failover: a sensor sees that the primary is lost, and a run promotes a standby.

The sensor decides and the run acts: a tick that is given up is not cancelled. Without a quorum this is no high
availability: whoever needs that takes Patroni.
"""

import itertools
import time
from collections.abc import Callable, Iterator

import dagster as dg
import psycopg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from pydantic import BaseModel, Field

from depot_ops.assets.replica import WRITABLE_PRIMARY
from depot_ops.checks.result import check_result
from depot_ops.jobs import MAX_RUNTIME
from depot_ops.replicas import failover as steps
from depot_ops.replicas.create import Place
from depot_ops.replicas.failover import Failover
from depot_ops.replicas.loss import Loss, NotLost, Verdict, require_loss, watch_primary
from depot_ops.replicas.nodes import ReplicaError
from depot_ops.replicas.promotion import Refused
from depot_ops.replicas.site import ASSISTED, epochs_of, patience_of, place_of, terms_of, why_not
from depot_ops.reports import failovers as documents
from depot_ops.resources import Replicas
from depot_ops.settings import FailoverProvider, FailoverSettings, ReplicaSettings, SettingsError, load

INTERVAL_SECONDS = 1  # the daemon looks every five seconds; with five or more it would be every ten
POOL = "failover"
LOST_TIMELINE = "depot/lost_timeline"
MAX_ATTEMPTS = 3
RECENT_RUNS = 100
# Longer than every step together may take; the storage of Dagster does not notice that a run's process died.
DEAD_RUN_SECONDS = 180
# A watch that ended longer ago says nothing of now. Where the machine is short of time, ticks come that much apart.
FORGET_LOOKS_SECONDS = 20.0
TOLD = (ReplicaError, psycopg.Error, OSError, SettingsError)


# The run ------------------------------------------------------------------------------------------------------------


class RecheckConfig(dg.Config):
    """What the sensor saw; nothing when a person launches the job."""

    seen: list[str] = Field(default_factory=list)


@dg.op(pool=POOL, out={"lost": dg.Out(dg.Nothing, is_required=False)}, tags={"dagster/kind/postgres": ""})
def recheck_primary(context: dg.OpExecutionContext, config: RecheckConfig) -> Iterator[dg.Output[None]]:
    """Look again, from here and from the standbys: is the primary lost? Takes up a failover that was interrupted.

    Where a node takes writes, the primary or what another run promoted, nothing is left to do, and the run ends green.
    """

    def recheck(place: Place, settings: FailoverSettings) -> Failover:
        seen, left = tuple(config.seen), steps.interrupted(place)
        if left is not None and steps.has_promoted(place, left):
            depot = left.system_identifier
        else:
            loss = require_loss(place)
            depot, seen = loss.system_identifier, seen + loss.seen
        if reason := why_not(settings, place, depot):
            raise Refused(reason)
        return steps.begin(place, terms_of(settings), seen)

    try:
        _carried_out(context, recheck)
    except NotLost as error:
        context.log.info(f"Nothing is left to do: {error}")
        return
    yield dg.Output(None, "lost")


def _op(name: str, step: steps.Step) -> dg.OpDefinition:
    """One step of a failover, as its docstring describes it."""

    @dg.op(
        name=name,
        pool=POOL,
        ins={"before": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        tags={"dagster/kind/postgres": ""},
        description=step.__doc__,
    )
    def carry_out(context: dg.OpExecutionContext) -> None:
        _carried_out(context, lambda place, _: step(place, _begun(place)))

    return carry_out


@dg.op(pool=POOL, ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), tags={"dagster/kind/postgres": ""})
def begin_epoch(context: dg.OpExecutionContext) -> None:
    """Begin an epoch as the first write: from then on the service takes no server of an older one."""
    _carried_out(context, lambda place, settings: steps.begin_next_epoch(place, _begun(place), epochs_of(settings)))


@dg.op(pool=POOL, ins={"before": dg.In(dg.Nothing)}, tags={"dagster/kind/postgres": ""})
def document_failover(context: dg.OpExecutionContext) -> None:
    """Keep what the lost primary had and nobody else has, and leave the document in BACKUP_DIR/failovers."""

    def document(place: Place, settings: FailoverSettings) -> Failover:
        if settings.backup_dir:
            begun, archive = _begun(place), settings.wal_archive_dir
            failover, written, page = documents.document_failover(place, begun, settings.backup_dir, archive)
            context.add_output_metadata(
                {"document": dg.MetadataValue.path(str(written)), "page": dg.MetadataValue.md(page.read_text())}
            )
        else:
            failover = steps.finish_without_document(place, _begun(place))
        steps.forget(place)
        return failover

    _carried_out(context, document)


def _begun(place: Place) -> Failover:
    failover = steps.under_way(place)
    if failover is None:
        raise ReplicaError("the failover has ended, by another hand: look at `depot-ops replica list`")
    return failover


def _carried_out(context: dg.OpExecutionContext, step: Callable[[Place, FailoverSettings], Failover]) -> None:
    """Alone on the nodes. What stops it is told; the next attempt takes it up here."""
    try:
        settings = load(FailoverSettings)
        place = place_of(settings)
        with place.nodes.locked():
            failover = step(place, settings)
    except NotLost:
        raise
    except TOLD as error:
        raise dg.Failure(str(error).strip(), allow_retries=False) from error
    context.log.info(failover.model_dump_json())


@dg.job(
    executor_def=dg.in_process_executor,
    # Ahead of all that waits; dagster.yaml keeps a place free for this owner.
    tags={"owner": "depot-failover", "dagster/priority": "100", MAX_RUNTIME: "300", "dagster/kind/postgres": ""},
    description=(
        "Assisted failover: looks again whether the primary is lost, chooses the standby that has most, stops the old"
        " primary for good and proves it, promotes, begins a cluster epoch, and documents it in BACKUP_DIR/failovers."
        " Red: nothing was promoted, or it was and a later step failed; the run says which, and the sensor tries again."
        " Afterwards the old primary rejoins with `depot-ops replica rejoin`."
    ),
)
def promote_replica() -> None:
    chosen = _op("choose_standby", steps.choose)(recheck_primary())
    fenced = _op("fence_primary", steps.fence_suspects)(chosen)
    # Which verifies the fence itself, right before.
    promoted = begin_epoch(_op("promote_standby", steps.promote_target)(fenced))
    document_failover(_op("await_writes", steps.await_writes)(promoted))


# The sensor ---------------------------------------------------------------------------------------------------------


def failover_jobs(provider: FailoverProvider) -> list[dg.JobDefinition]:
    """Nothing of ours promotes where Patroni does."""
    return [promote_replica] if provider is FailoverProvider.ASSISTED else []


def failover_checks(provider: FailoverProvider, names: list[str]) -> list[dg.AssetChecksDefinition]:
    """None where there is nothing to watch."""
    return [_assisted_check()] if _may_promote(provider, names) else []


def _assisted_check() -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=WRITABLE_PRIMARY,
        name=ASSISTED,
        compute_kind="postgres",
        description=(
            "Where ASSISTED_FAILOVER is on, a lost primary would be replaced. Red when it is on and nothing would be"
            " promoted, because Dagster's storage is on the depot's own server or nobody can tell."
        ),
    )
    def assisted_failover(replicas: Replicas) -> dg.AssetCheckResult:
        return check_result(replicas.check_assisted())

    return assisted_failover


def failover_sensors(provider: FailoverProvider, names: list[str]) -> list[dg.SensorDefinition]:
    """None where there is nothing to watch."""
    return [_health_sensor()] if _may_promote(provider, names) else []


def _may_promote(provider: FailoverProvider, names: list[str]) -> bool:
    """Without a directory of nodes nobody here knows how to fence one."""
    known = load(ReplicaSettings).replica_dir is not None
    return provider is not FailoverProvider.PATRONI and known and bool(names)


class Memory(BaseModel):
    """What one tick leaves to the next, as the sensor's cursor."""

    well_at: float = 0.0
    """When a node was last seen to take writes: attempts of before count no more."""
    looks: tuple[bool, ...] = ()
    looked_at: float = 0.0

    @classmethod
    def of(cls, cursor: str | None) -> "Memory":
        return cls.model_validate_json(cursor) if cursor else cls()

    def recent_looks(self) -> tuple[bool, ...]:
        return self.looks if time.time() - self.looked_at < FORGET_LOOKS_SECONDS else ()

    def after(self, verdict: Verdict) -> "Memory":
        now = time.time()
        return Memory(well_at=now if verdict.is_well else self.well_at, looks=verdict.looks, looked_at=now)


def _health_sensor() -> dg.SensorDefinition:
    @dg.sensor(
        name="primary_health",
        job=promote_replica,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Watches the primary, from here and as its standbys see it, and launches promote_replica when it is lost"
            " and ASSISTED_FAILOVER is on; the check assisted_failover says whether anything would be promoted."
        ),
    )
    def primary_health(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        begun, memory = time.monotonic(), Memory.of(context.cursor)
        if (run_id := _at_work(context.instance)) is not None:  # which needs the processors more than we do
            return dg.SkipReason(f"The run {run_id} is at it.")
        try:
            settings = load(FailoverSettings)
            place = place_of(settings)
            verdict = _half_done(place) or watch_primary(place, patience_of(settings), memory.recent_looks(), begun)
            context.update_cursor(memory.after(verdict).model_dump_json())
            if verdict.loss is None:
                return dg.SkipReason(verdict.detail)
            with place.nodes.locked():  # nobody is at it: a person's switchover is no loss
                refusal = why_not(settings, place, verdict.loss.system_identifier)
        except TOLD as error:
            return dg.SkipReason(f"The primary could not be watched: {str(error).strip()}")
        if refusal:
            return dg.SkipReason(f"{verdict.detail}. NOTHING IS PROMOTED: {refusal}")
        return _requested(context.instance, verdict.loss, verdict.detail, memory.well_at)

    return primary_health


def _half_done(place: Place) -> Verdict | None:
    """A failover that has promoted and not ended. One that came to nothing is forgotten, once a node takes writes."""
    failover = steps.under_way(place)
    if failover is None:
        return None
    if steps.has_promoted(place, failover):
        detail = f"a failover that began {failover.started_at:%Y-%m-%d %H:%M:%S} UTC has promoted and not ended"
        return Verdict(detail, Loss(failover.system_identifier, failover.old_timeline, ()))
    if not steps.is_left_to_do(place, failover):
        with place.nodes.locked():  # whoever is at it carries it on
            steps.interrupted(place)
    return None


def _requested(instance: dg.DagsterInstance, loss: Loss, detail: str, well_at: float) -> dg.RunRequest | dg.SkipReason:
    """A key is used up by its run, so each attempt has its own."""
    lost = f"{loss.system_identifier}:{loss.timeline}"
    ours = dg.RunsFilter(job_name=promote_replica.name, tags={LOST_TIMELINE: lost})
    attempts = instance.get_run_records(ours, limit=RECENT_RUNS)
    recent = [one.dagster_run for one in attempts if one.create_timestamp.timestamp() > well_at]
    failed = len(list(itertools.takewhile(lambda run: not run.is_success, recent)))  # the newest first
    if failed >= MAX_ATTEMPTS:
        return dg.SkipReason(
            f"{detail}. {failed} attempts failed, the last says why: a person decides (`depot-ops replica promote`)"
        )
    return dg.RunRequest(
        run_key=f"{lost}:{len(attempts) + 1}",
        run_config=dg.RunConfig(ops={recheck_primary.name: RecheckConfig(seen=list(loss.seen))}),
        tags={LOST_TIMELINE: lost},
    )


def _at_work(instance: dg.DagsterInstance) -> str | None:
    """The run that has not ended, of which there is one at a time."""
    unfinished = dg.RunsFilter(job_name=promote_replica.name, statuses=NOT_FINISHED_STATUSES)
    living = (one for one in instance.get_run_records(unfinished) if not _gave_up_dead(instance, one))
    return next((one.dagster_run.run_id for one in living), None)


def _gave_up_dead(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """Dagster's default launcher does not notice that a run's process died, which keeps its slot in the pool."""
    if record.start_time is None or time.time() - record.start_time < DEAD_RUN_SECONDS:
        return False
    run = record.dagster_run
    instance.report_run_failed(run, f"It has not ended within {DEAD_RUN_SECONDS} s: it died.")
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return True
