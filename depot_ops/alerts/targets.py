"""Who is told: a webhook, a Slack-compatible one, people by mail. No error names an address: it holds a secret."""

import json
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import unquote, urlsplit

import urllib3

from depot_ops.alerts.ledger import Alarm, AlarmState
from depot_ops.settings import AlertSettings

TIMEOUT_SECONDS = 5.0
ICONS = {AlarmState.FIRING: ":rotating_light:", AlarmState.RESOLVED: ":white_check_mark:"}


class NotTaken(Exception):
    """The target did not take the message; it is tried again."""


class Target(Protocol):
    """Takes messages."""

    def send(self, alarm: Alarm) -> None:
        """Raises NotTaken."""
        ...


class Webhook:
    """The alarm as one JSON object, with `schema_version`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, alarm: Alarm) -> None:
        _post(self._url, {"schema_version": 1, **alarm.model_dump(mode="json")})


class Slack:
    """What Slack and those that speak like it (Mattermost, Rocket.Chat, Discord's /slack) show as a message."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, alarm: Alarm) -> None:
        text = f"{ICONS[alarm.state]} *{_escaped(alarm.title)}* ({alarm.state})\n{_escaped(alarm.detail)}"
        _post(self._url, {"text": f"{text}\n<{alarm.url}>" if alarm.url else text})


class Mail:
    """A message for each alarm, over STARTTLS where the server has it and always where it asks for a password."""

    def __init__(self, url: str, sender: str, recipients: str) -> None:
        self._server = urlsplit(url)
        self._sender = sender
        self._recipients = recipients

    def send(self, alarm: Alarm) -> None:
        message = EmailMessage()
        message["From"], message["To"] = self._sender, self._recipients
        message["Subject"] = " ".join(f"[{alarm.state}] {alarm.title}".split())
        message.set_content(f"{alarm.detail}\n\n{alarm.at.isoformat()}\n{alarm.url or ''}\n")
        try:
            with self._connected() as server:
                self._sign_in(server)
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise NotTaken(f"the mail server did not take it: {type(error).__name__}") from None

    def _connected(self) -> smtplib.SMTP:
        host, port = self._server.hostname or "", self._server.port
        if self._server.scheme == "smtps":
            return smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
        return smtplib.SMTP(host, port or 25, timeout=TIMEOUT_SECONDS)

    def _sign_in(self, server: smtplib.SMTP) -> None:
        server.ehlo()
        username = self._server.username
        if self._server.scheme != "smtps" and (username or server.has_extn("starttls")):
            server.starttls(context=ssl.create_default_context())
        if username:
            server.login(unquote(username), unquote(self._server.password or ""))


def configured_targets(settings: AlertSettings) -> Mapping[str, Target]:
    """By name; none when nothing is set."""
    targets: dict[str, Target] = {}
    if settings.alert_webhook_url:
        targets["webhook"] = Webhook(settings.alert_webhook_url.get_secret_value())
    if settings.alert_slack_url:
        targets["slack"] = Slack(settings.alert_slack_url.get_secret_value())
    if settings.alert_smtp_url:
        targets["mail"] = Mail(
            settings.alert_smtp_url.get_secret_value(), settings.alert_mail_from, settings.alert_mail_to
        )
    return targets


def _post(url: str, body: Mapping[str, object]) -> None:
    try:
        response = urllib3.request(
            "POST",
            url,
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "asset-depot"},
            timeout=TIMEOUT_SECONDS,
            retries=False,
            redirect=False,
        )
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise NotTaken(f"it does not answer: {type(error).__name__}") from None
    if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's success
        raise NotTaken(f"it answered HTTP {response.status}")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
