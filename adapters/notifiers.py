"""Telling people: Slack, e-mail, SMS, phone, PagerDuty and webhooks through apprise; terminal and file without an account (R6.5).

Accounts are addresses in apprise's form, in the environment alone. Nothing of them is ever logged or kept.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lifecycle.alerting import LOCAL, Channel, Priority
from lifecycle.alerts import Kind
from lifecycle.errors import ConfigError
from lifecycle.messages import Message
from lifecycle.redaction import MASK, redacted

ACCOUNTS = {
    Channel.SLACK: ("PRODECKS_SLACK_URL", ("slack",), "https://hooks.slack.com/services/T.../B.../..."),
    Channel.EMAIL: ("PRODECKS_SMTP_URL", ("mailto", "mailtos"), "mailtos://user:password@host:587?from=alerts@host"),
    Channel.SMS: ("PRODECKS_TWILIO_URL", ("twilio",), "twilio://SID:TOKEN@+15550100000"),
    Channel.PHONE: ("PRODECKS_TWILIO_URL", ("twilio",), "twilio://SID:TOKEN@+15550100000"),
    Channel.PAGERDUTY: ("PRODECKS_PAGERDUTY_URL", ("pagerduty",), "pagerduty://INTEGRATION_KEY@API_KEY"),
    Channel.WEBHOOK: ("PRODECKS_WEBHOOK_URL", None, "jsons://host/path, or any other address that apprise knows"),
}
"""Channel: the variable with its account, the kinds of address it takes (None: any), and an example."""
SECRET = 6  # characters; what is shorter would mask words by chance
SEVERITY = {Priority.P0: "critical", Priority.P1: "error", Priority.P2: "warning", Priority.P3: "info"}


@dataclass(frozen=True, slots=True)
class Sent:
    """How sending ended: whether the other side took it, and what it said."""

    ok: bool
    detail: str


class Notifiers:
    """The channels of one process.

    Parameters
    ----------
    accounts
        Channel: its address as apprise takes it apart.
    file
        Where the channel ``file`` writes, one JSON object a line.
    terminal
        Where the channel ``terminal`` writes.
    """

    def __init__(self, accounts: Mapping[Channel, dict[str, Any]], file: Path, terminal: TextIO | None = None) -> None:
        self._accounts, self._file, self._terminal = accounts, file, terminal
        self._secrets = sorted({text for one in accounts.values() for text in _secrets(one)}, key=len, reverse=True)

    @classmethod
    def from_environment(cls, file: Path, terminal: TextIO | None = None) -> Notifiers:
        """Accounts of the environment; ConfigError names the variable that cannot be read, and nothing of its value."""
        accounts: dict[Channel, dict[str, Any]] = {}
        for channel, (variable, kinds, example) in ACCOUNTS.items():
            address = os.environ.get(variable, "").strip()
            if address:
                parts = _parts(address)
                if parts is None or (kinds is not None and parts["schema"] not in kinds):
                    raise ConfigError(f"{variable} cannot be read; accepted: {example}")
                accounts[channel] = parts
        return cls(accounts, file, terminal)

    @property
    def available(self) -> frozenset[Channel]:
        """Channels with an account."""
        return frozenset(self._accounts)

    def send(self, channel: Channel, contact: str | None, message: Message, kind: Kind) -> Sent:
        """Tell once; never raises for what the other side does.

        Parameters
        ----------
        contact
            E-mail address or phone number, for channels that reach a person.
        """
        if channel in LOCAL:
            return self._locally(channel, message)
        account = self._accounts.get(channel)
        if account is None:
            return Sent(False, f"no account; set {ACCOUNTS[channel][0]}")
        return self._through_apprise(channel, {**account}, contact, message, kind)

    def _locally(self, channel: Channel, message: Message) -> Sent:
        try:
            if channel is Channel.TERMINAL:
                stream = self._terminal or sys.stderr
                stream.write(f"{message.title}\n{message.text}\n")
                stream.flush()
                return Sent(True, "shown")
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**message.facts, "title": message.title}, ensure_ascii=False) + "\n")
        except OSError as error:
            return Sent(False, f"{channel}: {error.strerror or error}")
        return Sent(True, f"written to {self._file.name}")

    def _through_apprise(
        self, channel: Channel, account: dict[str, Any], contact: str | None, message: Message, kind: Kind
    ) -> Sent:
        import apprise
        from apprise.attachment.memory import AttachMemory

        title, body, attach = message.title, message.text, None
        form = apprise.NotifyFormat.TEXT
        if channel in (Channel.SMS, Channel.PHONE):
            account |= {"targets": [contact], "method": "call" if channel is Channel.PHONE else "sms"}
            title, body = "", message.speech if channel is Channel.PHONE else message.short
        elif channel is Channel.EMAIL:
            account |= {"targets": [contact], "format": "html"}
            body, form = message.html, apprise.NotifyFormat.HTML
            if message.picture is not None:
                attach = [AttachMemory(content=message.picture, name="trend.png", mimetype="image/png")]
        elif channel is Channel.PAGERDUTY:
            account |= {
                "dedup": message.facts["alert"],
                "action": "resolve" if kind is Kind.RESOLVED else "trigger",
                "severity": SEVERITY[Priority(message.facts["priority"])],
                "component": message.facts["model"],
                "class_id": message.facts["rule"],
                "details": {name: _said(value) for name, value in message.facts.items()} | {"text": message.text},
                "include_image": False,
            }
            title, body = "", message.title
        elif channel is Channel.WEBHOOK and account["schema"] in ("json", "jsons"):
            account |= {"payload": {name: _said(value) for name, value in message.facts.items()}}
        with _heard() as said:
            plugin = apprise.Apprise.instantiate(account, suppress_exceptions=True)
            # Its severity and keys say how bad it is; apprise's own kinds only colour it.
            colour = apprise.NotifyType.SUCCESS if kind is Kind.RESOLVED else apprise.NotifyType.FAILURE
            ok = plugin is not None and plugin.notify(
                title=title, body=body, notify_type=colour, body_format=form, attach=attach
            )
        return Sent(
            bool(ok), "taken" if ok else self._without_secrets("; ".join(said)) or "not taken, without a reason"
        )

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return redacted(text)


def _parts(address: str) -> dict[str, Any] | None:
    """An address as apprise takes it apart and can be made of again; None where it cannot."""
    import apprise
    from apprise import plugins

    with _heard():
        parts = plugins.url_to_dict(address, secure_logging=True)
        if parts is None or apprise.Apprise.instantiate({**parts}, suppress_exceptions=True) is None:
            return None
    return parts


def _secrets(parts: Mapping[str, Any]) -> Iterator[str]:
    """Pieces of an address that nobody may read: any but its kind may be a secret, and is long enough to be one."""
    for name, value in parts.items():
        if isinstance(value, str) and name != "schema":
            yield from (piece for piece in [value, *value.split("/")] if len(piece) >= SECRET)
        elif isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, list):
            yield from (piece for piece in value if isinstance(piece, str) and len(piece) >= SECRET)


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


class _Ear(logging.Filter):
    """Takes what apprise logs away from every handler, whoever put it there, and keeps it for the thread that sends.

    apprise writes whole addresses, and an address may be all the secret there is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing through."""
        heard: list[str] | None = getattr(self.of_thread, "heard", None)
        if heard is not None and record.levelno >= logging.WARNING:
            heard.append(record.getMessage())
        return False


_ear = _Ear()


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What apprise logs of an attempt: it is its only account of what went wrong."""
    logging.getLogger("apprise").addFilter(_ear)  # once, however often it is said
    requests = logging.getLogger("urllib3")  # at level DEBUG it writes whole addresses too
    requests.setLevel(max(logging.INFO, requests.level))
    heard: list[str] = []
    _ear.of_thread.heard = heard
    try:
        yield heard
    finally:
        _ear.of_thread.heard = None
