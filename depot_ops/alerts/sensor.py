"""The sensor that tells of failed runs and failed checks, and once when they are well again.

One ordinary sensor instead of Dagster's run-failure sensor: that one tells of no check without a run, never that a run
succeeded again, and loses what it could not deliver.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from depot_ops.alerts.ledger import Alarm, Ledger
from depot_ops.alerts.targets import NotTaken, Target, configured_targets
from depot_ops.merge_runs import MERGE
from depot_ops.settings import AlertSettings, SettingsError, load

INTERVAL_SECONDS = 30
# A tick is given up after a minute; what is left goes out with the next.
SENDING_SECONDS = 30.0
OVERLAP = timedelta(minutes=1)
MAX_RUNS = 500
RUN, CHECK = "run:", "check:"
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells the targets of ALERT_* of every failed run and check, not again within ALERT_REPEAT_SECONDS, and once"
        " when it is well again. It starts no run. What a target does not take is kept and tried again."
    ),
)
def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    try:
        settings = load(AlertSettings)
        targets = configured_targets(settings)
    except SettingsError as error:
        return dg.SkipReason(f"Nobody can be told: {error}")
    if not targets:
        return dg.SkipReason("Nobody is to be told: set ALERT_WEBHOOK_URL, ALERT_SLACK_URL or ALERT_SMTP_URL.")
    ledger = Ledger.model_validate_json(context.cursor) if context.cursor else Ledger()
    now = datetime.now(UTC)
    look = _Look(context.instance, ledger, list(targets), settings, now)
    look.at_runs()
    look.at_checks(context.repository_def)
    told, troubles = send(ledger, targets)
    for trouble in troubles:
        context.log.warning(trouble)
    said = f"{told} messages told, {len(ledger.queue)} wait. {'; '.join(troubles)}"
    return dg.SensorResult(skip_reason=said.strip(), cursor=ledger.model_dump_json())


def send(ledger: Ledger, targets: Mapping[str, Target]) -> tuple[int, list[str]]:
    """What waits, in order; a target that does not take one is left alone until the next tick."""
    deadline = time.monotonic() + SENDING_SECONDS
    waiting, troubles, told = [], dict[str, str](), 0
    for queued in ledger.queue:
        target = targets.get(queued.target)
        if target is None:  # it is configured no more
            continue
        if queued.target in troubles or time.monotonic() > deadline:
            waiting.append(queued)
            continue
        try:
            target.send(queued.alarm)
            told += 1
        except NotTaken as error:
            troubles[queued.target] = f"{queued.target}: {error}"
            waiting.append(queued)
    ledger.queue = waiting
    return told, list(troubles.values())


class _Look:
    """One look at what ended and how the checks stand."""

    def __init__(
        self, instance: dg.DagsterInstance, ledger: Ledger, targets: list[str], settings: AlertSettings, now: datetime
    ) -> None:
        self._instance = instance
        self._ledger = ledger
        self._targets = targets
        self._repeat_after = timedelta(seconds=settings.alert_repeat_seconds)
        self._url = str(settings.dagster_url).rstrip("/")
        self._now = now

    def at_runs(self) -> None:
        """Each run that ended since the last look. The first look tells nothing of what was long before it."""
        ledger = self._ledger
        if ledger.runs_seen_until is None:
            ledger.runs_seen_until = self._now
        since = ledger.runs_seen_until - OVERLAP
        filters = dg.RunsFilter(statuses=ENDED, updated_after=since)
        for record in self._instance.get_run_records(filters, MAX_RUNS, order_by="update_timestamp", ascending=True):
            ended_at = record.update_timestamp.replace(tzinfo=UTC)
            # Whoever tags an old run changes its time of update, but not that of its end.
            is_news = record.end_time is None or record.end_time >= (since - OVERLAP).timestamp()
            if is_news and record.dagster_run.run_id not in ledger.runs_seen:
                self._at_run(record.dagster_run)
                ledger.runs_seen[record.dagster_run.run_id] = ended_at
            ledger.runs_seen_until = max(ledger.runs_seen_until, ended_at)
        oldest = ledger.runs_seen_until - OVERLAP
        ledger.runs_seen = {run_id: at for run_id, at in ledger.runs_seen.items() if at >= oldest}
        ledger.forget_old([key for key in ledger.firing if key.startswith(RUN)], self._now)

    def _at_run(self, run: dg.DagsterRun) -> None:
        merge = run.tags.get(MERGE)
        key = f"{RUN}{run.job_name}" + (f":{merge}" if merge else "")
        if run.status is dg.DagsterRunStatus.SUCCESS:
            self._ledger.resolve(key, self._now, self._targets)
            return
        alarm = Alarm(
            key=key,
            title=f"The run of {run.job_name} failed",
            detail=self._why(run.run_id),
            at=self._now,
            url=f"{self._url}/runs/{run.run_id}",
        )
        self._ledger.fire(alarm, self._targets, self._repeat_after)

    def _why(self, run_id: str) -> str:
        steps = self._instance.all_logs(run_id, of_type={dg.DagsterEventType.STEP_FAILURE})
        for entry in steps:
            event = entry.dagster_event
            if event is not None and event.step_failure_data.error is not None:
                return f"{event.step_key}: {event.step_failure_data.error.message.strip()}"
        return "No step says why: its process died, or it never started."

    def at_checks(self, repository: dg.RepositoryDefinition | None) -> None:
        """How each check stands now. One that is being made, or was never made, says nothing."""
        keys = list(repository.asset_graph.asset_check_keys) if repository else []
        latest = self._instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        for check_key, record in latest.items():
            event = record.event.dagster_event if record.event else None
            evaluation = event.event_specific_data if event else None
            if not isinstance(evaluation, dg.AssetCheckEvaluation):
                continue
            name = f"{check_key.name} of {check_key.asset_key.to_user_string()}"
            key = f"{CHECK}{check_key.asset_key.to_user_string()}:{check_key.name}"
            if evaluation.passed:
                self._ledger.resolve(key, self._now, self._targets)
                continue
            alarm = Alarm(
                key=key,
                title=f"The check {name} is not healthy",
                detail=evaluation.description or "It gives no reason.",
                at=self._now,
                url=f"{self._url}/assets/{'/'.join(check_key.asset_key.path)}?view=checks",
            )
            self._ledger.fire(alarm, self._targets, self._repeat_after)
