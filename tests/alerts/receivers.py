"""The other sides of the channels: servers that speak Slack's, Twilio's and PagerDuty's protocols, and SMTP, under their own names."""

from __future__ import annotations

import base64
import datetime
import email
import email.policy
import json
import logging
import re
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SLACK, TWILIO, PAGERDUTY, WEBHOOK = "hooks.slack.com", "api.twilio.com", "events.pagerduty.com", "hooks.example.com"
SLACK_PATH = "/services/T0AAAAAAA/B0BBBBBBB/ccccccccccccccccccccccc1"
SID, TOKEN = "AC" + "0123456789abcdef" * 2, "fedcba9876543210" * 2
ROUTING_KEY = "R0UT1NGKEY0123456789ABCDEF012345"
SMTP_PASSWORD = "mail-5ecret"


@dataclass
class Receivers:
    """What was received, and what is broken.

    Parameters
    ----------
    received
        Channel as the policy names it, and what came: parsed.
    down
        Hosts that answer 503 (for ``smtp``: 451).
    """

    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    incidents: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def channels(self) -> list[str]:
        return [channel for channel, _ in self.received]

    def of(self, channel: str) -> list[dict[str, Any]]:
        return [what for name, what in self.received if name == channel]

    def clear(self) -> None:
        self.received.clear()
        self.down.clear()

    def answer(self, host: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """As the real service would."""
        if host in self.down:
            return 503, "unavailable"
        if host == SLACK:
            told = json.loads(body)
            if path != SLACK_PATH:
                return 403, "invalid_token"
            if not told.get("text") and not told.get("blocks") and not told.get("attachments"):
                return 400, "no_text"
            self.received.append(("slack", told))
            return 200, "ok"
        if host == TWILIO:
            return self._twilio(path, headers, body)
        if host == PAGERDUTY:
            return self._pagerduty(path, body)
        self.received.append(("webhook", json.loads(body)))
        return 200, {}

    def _twilio(self, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        expected = base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
        if headers.get("Authorization") != f"Basic {expected}":
            return 401, {"code": 20003, "message": "Authenticate", "status": 401}
        found = re.fullmatch(rf"/2010-04-01/Accounts/{SID}/(Messages|Calls)\.json", path)
        told = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        asked = {"From", "To", "Body" if found and found[1] == "Messages" else "Twiml"}
        if found is None or not asked <= set(told) or not re.fullmatch(r"\+\d{8,15}", told["To"]):
            return 400, {"code": 21211, "message": "The 'To' number is not a valid phone number.", "status": 400}
        if len(told.get("Body", "")) > 1600:
            return 400, {"code": 21617, "message": "The concatenated message body exceeds the 1600 character limit."}
        self.received.append(("sms" if found[1] == "Messages" else "phone", told))
        return 201, {"sid": "SM" + "0" * 32, "status": "queued"}

    def _pagerduty(self, path: str, body: bytes) -> tuple[int, Any]:
        told = json.loads(body)
        if path != "/v2/enqueue" or told.get("routing_key") != ROUTING_KEY:
            return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": ["routing_key"]}
        action, key = told.get("event_action"), told.get("dedup_key")
        payload = told.get("payload", {})
        valid = payload.get("summary") and payload.get("source") and payload.get("severity") in (
            "critical", "error", "warning", "info",
        )  # fmt: skip
        if action not in ("trigger", "acknowledge", "resolve") or (action == "trigger" and not valid) or not key:
            return 400, {"status": "invalid event", "errors": ["payload"]}
        self.incidents[key] = "resolved" if action == "resolve" else "triggered"
        self.received.append(("pagerduty", told))
        return 202, {"status": "success", "message": "Event processed", "dedup_key": key}

    # aiosmtpd

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd calls it
        if "smtp" in self.down:
            return "451 4.3.0 try again later"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        parts = {part.get_content_type(): part for part in message.walk()}
        self.received.append(
            ("email", {
                "to": envelope.rcpt_tos,
                "subject": message["subject"],
                "html": parts["text/html"].get_content() if "text/html" in parts else "",
                "picture": parts["image/png"].get_content() if "image/png" in parts else None,
            })
        )  # fmt: skip
        return "250 accepted"


def _certificate(folder: Path) -> Path:
    """A certificate for all of the hosts, trusted by nobody but those who are told to."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receivers")])
    today = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    hosts = [x509.DNSName(host) for host in (SLACK, TWILIO, PAGERDUTY, WEBHOOK)]
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(today - day).not_valid_after(today + day)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "receivers.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def _http(receivers: Receivers) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            host = self.headers["Host"].split(":")[0]
            if host == "127.0.0.1":  # asked by number: its path says who is meant
                host = PAGERDUTY if self.path == "/v2/enqueue" else SLACK
            status, answer = receivers.answer(host, self.path, self.headers, body)
            told = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *arguments: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def _https(receivers: Receivers, certificate: Path) -> ThreadingHTTPServer:
    server = _http(receivers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def _proxy(port: int) -> socketserver.ThreadingTCPServer:
    """An HTTP proxy whose every tunnel ends at our server: the names on the way stay the real ones."""

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as upstream:
                ends = {self.connection: upstream, upstream: self.connection}
                while True:
                    for ready in select.select(list(ends), [], [], 10)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        ends[ready].sendall(data)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel)
    server.daemon_threads = True
    return server


def _authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.password == SMTP_PASSWORD.encode(), handled=False)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving_plainly(receivers: Receivers) -> Iterator[int]:
    """Slack and PagerDuty without TLS, for a program that can be told where they are; the port."""
    server = _http(receivers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def running(folder: Path) -> Iterator[Receivers]:
    """All of them, on ports of their own; `environment` leads a process to them."""
    receivers = Receivers()
    certificate = _certificate(folder)
    https = _https(receivers, certificate)
    proxy = _proxy(https.server_address[1])
    smtp_port = _free_port()
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    smtp = Controller(
        receivers, hostname="127.0.0.1", port=smtp_port, authenticator=_authenticate, auth_require_tls=False,
        auth_required=True,
    )  # fmt: skip
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in (https, proxy)]
    for thread in threads:
        thread.start()
    smtp.start()
    receivers.environment = {
        "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_address[1]}",
        "NO_PROXY": "",
        "no_proxy": "",
        "REQUESTS_CA_BUNDLE": str(certificate),
        "PRODECKS_SLACK_URL": f"https://{SLACK}{SLACK_PATH}",
        "PRODECKS_TWILIO_URL": f"twilio://{SID}:{TOKEN}@+15550100000",
        "PRODECKS_PAGERDUTY_URL": f"pagerduty://{ROUTING_KEY}@none",
        "PRODECKS_SMTP_URL": f"mailto://alerts:{SMTP_PASSWORD}@127.0.0.1:{smtp_port}?mode=insecure&from=alerts@example.com",
    }
    try:
        yield receivers
    finally:
        smtp.stop()
        for server in (https, proxy):
            server.shutdown()
            server.server_close()
