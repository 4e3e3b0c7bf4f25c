"""Failed runs and checks reach real receivers once, are told again only after the window, and are resolved once."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from depot_ops.alerts.ledger import MAX_QUEUED, Alarm, AlarmState, Ledger
from depot_ops.alerts.sensor import alerts
from depot_ops.alerts.targets import Mail, NotTaken, Slack, Webhook
from depot_ops.settings import AlertSettings, SettingsError, load

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALARM = Alarm(key="run:x", title="The run of <x>\nfailed", detail="disk & all", at=NOW, url="http://dagster/runs/1")
PASSWORD_PATH = "/hooks/very-secret"


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.received: list[dict] = []
        self.url = f"http://127.0.0.1:{self.server_port}{PASSWORD_PATH}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.received.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class MailServer(socketserver.ThreadingTCPServer):
    """As much of SMTP as it takes to be sent a mail."""

    daemon_threads = True  # a client that keeps its connection must not keep the test

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.mails: list[bytes] = []
        self.url = f"smtp://127.0.0.1:{self.server_address[1]}"


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        for line in self.rfile:
            command = line[:4].upper().strip()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")
            if command == b"QUIT":
                return


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    with serving(server):
        yield server


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    with serving(server):
        yield server


@dg.op(config_schema={"fails": bool})
def work(context: dg.OpExecutionContext) -> None:
    if context.op_config["fails"]:
        raise dg.Failure("the disk is full", allow_retries=False)


@dg.job
def night() -> None:
    work()


@dg.asset
def archive() -> None: ...


@dg.asset_check(asset=archive)
def continuity() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


DEFINITIONS = dg.Definitions(assets=[archive], asset_checks=[continuity], jobs=[night], sensors=[alerts])


class Daemon:
    """Evaluates the sensor as Dagster's daemon does: with the cursor that it returned last."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> str:
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=DEFINITIONS.get_repository_def()
        )
        result = alerts(context)
        if isinstance(result, dg.SkipReason):
            return str(result.skip_message)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return str(
            result.skip_reason.skip_message if isinstance(result.skip_reason, dg.SkipReason) else result.skip_reason
        )

    def run(self, *, fails: bool) -> str:
        config = {"ops": {"work": {"config": {"fails": fails}}}}
        return night.execute_in_process(config, instance=self.instance, raise_on_error=False).run_id

    def evaluate(self, *, passed: bool) -> None:
        evaluation = dg.AssetCheckEvaluation(
            asset_key=archive.key,
            check_name="continuity",
            passed=passed,
            metadata={},
            description="a segment is missing",
        )
        self.instance.report_runless_asset_event(evaluation)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    for name in ("ALERT_WEBHOOK_URL", "ALERT_SLACK_URL", "ALERT_SMTP_URL", "ALERT_REPEAT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    with dg.DagsterInstance.local_temp() as instance:
        yield Daemon(instance)


def test_runs_and_checks_are_told_once_and_resolved_once(daemon, receiver, monkeypatch):
    assert "Nobody is to be told" in daemon.tick()
    monkeypatch.setenv("ALERT_WEBHOOK_URL", receiver.url)
    daemon.tick()
    assert receiver.received == []

    failed = daemon.run(fails=True)
    daemon.evaluate(passed=False)
    daemon.tick()
    run, check = receiver.received
    assert (run["key"], run["state"], run["schema_version"]) == ("run:night", "firing", 1)
    assert "the disk is full" in run["detail"]
    assert run["url"].endswith(f"/runs/{failed}")
    assert (check["key"], check["state"]) == ("check:archive:continuity", "firing")
    assert check["detail"] == "a segment is missing"

    daemon.run(fails=True)
    daemon.evaluate(passed=False)
    daemon.tick()
    assert len(receiver.received) == 2, "the same alarm within the window"

    daemon.run(fails=False)
    daemon.evaluate(passed=True)
    daemon.tick()
    daemon.run(fails=False)
    daemon.tick()
    assert [(one["key"], one["state"]) for one in receiver.received[2:]] == [
        ("run:night", "resolved"),
        ("check:archive:continuity", "resolved"),
    ]

    # What a target does not take is kept, and told in order when it does.
    receiver.status = 503
    daemon.run(fails=True)
    told = daemon.tick()
    assert "1 wait" in told
    assert "HTTP 503" in told
    assert "secret" not in told
    receiver.status = 200
    daemon.tick()
    assert [one["state"] for one in receiver.received[4:]] == ["firing"]


def test_the_window_and_the_queue():
    ledger, hour = Ledger(), timedelta(hours=1)
    for minutes in (0, 30, 59, 61):
        ledger.fire(ALARM.model_copy(update={"at": NOW + timedelta(minutes=minutes)}), ["webhook", "mail"], hour)
    assert [(one.target, one.alarm.at.minute) for one in ledger.queue] == [
        *(("webhook", 0), ("mail", 0)),
        *(("webhook", 1), ("mail", 1)),
    ]
    ledger.resolve("run:x", NOW, ["mail"])
    ledger.resolve("run:x", NOW, ["mail"])
    assert [one.alarm.state for one in ledger.queue[4:]] == [AlarmState.RESOLVED]
    for number in range(MAX_QUEUED + 5):
        ledger.fire(ALARM.model_copy(update={"key": str(number), "detail": "x" * 5000}), ["mail"], hour)
    assert len(ledger.queue) == MAX_QUEUED
    assert len(ledger.queue[-1].alarm.detail) == 1000
    assert Ledger.model_validate_json(ledger.model_dump_json()) == ledger
    ledger.forget_old(list(ledger.firing), NOW + timedelta(days=8))
    assert ledger.firing == {}


def test_slack_is_sent_text_that_it_cannot_mistake(receiver):
    Slack(receiver.url).send(ALARM)
    (sent,) = receiver.received
    assert sent.keys() == {"text"}
    assert "&lt;x&gt;" in sent["text"]
    assert "disk &amp; all" in sent["text"]
    assert "<http://dagster/runs/1>" in sent["text"]


def test_a_mail_has_one_line_of_subject(mail_server):
    Mail(mail_server.url, "depot@studio.example", "a@studio.example, b@studio.example").send(ALARM)
    mail = message_from_bytes(mail_server.mails[0], policy=policy.default)
    assert mail["Subject"] == "[firing] The run of <x> failed"
    assert mail["To"] == "a@studio.example, b@studio.example"
    assert "disk & all" in mail.get_content()


def test_a_password_is_not_sent_in_the_clear(mail_server):
    target = Mail(mail_server.url.replace("//", "//user:hunter2@"), "a@x.example", "b@x.example")
    with pytest.raises(NotTaken) as caught:
        target.send(ALARM)
    assert "hunter2" not in str(caught.value)
    assert mail_server.mails == []


def test_a_target_that_is_gone_is_told_without_its_address():
    with pytest.raises(NotTaken) as caught:
        Webhook(f"http://127.0.0.1:1{PASSWORD_PATH}").send(ALARM)
    assert "secret" not in str(caught.value)


def test_a_mail_server_needs_addresses(monkeypatch):
    monkeypatch.setenv("ALERT_SMTP_URL", "smtp://user:hunter2@127.0.0.1")
    with pytest.raises(SettingsError, match="ALERT_MAIL_TO") as caught:
        load(AlertSettings)
    assert "hunter2" not in str(caught.value)
