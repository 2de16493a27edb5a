"""Who may do what: API keys kept as hashes, JSON Web Tokens of an identity provider, roles, rate limits (R5.7).

Deny by default: a route that the matrix does not name is closed to everybody.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifecycle.errors import ConfigError

KEY_BYTES = 32
MOST_CACHED = 10_000
TOKEN_CACHE_S = 60.0
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "EdDSA")
"""Signatures by a private key alone: with a shared secret, whoever checks a token could make one."""


class Role(enum.StrEnum):
    """What a client is allowed to do."""

    PREDICT = "predict"
    LABEL = "label"
    OPERATE = "operate"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """A client that was recognised.

    Parameters
    ----------
    client
        Its name, as it stands in the prediction log.
    roles
        What it may do; admin may do everything.
    """

    client: str
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        """Whether it holds the role."""
        return role in self.roles or Role.ADMIN in self.roles


@dataclass(frozen=True, slots=True)
class Denied(Exception):
    """A request that is not let in.

    Parameters
    ----------
    status
        401 when the client is unknown, 403 when it may not, 429 when it asks too often.
    reason
        For the record and for the client; holds nothing of what was sent.
    """

    status: int
    reason: str


MATRIX: dict[tuple[str, str], Role | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/v2/health/live"): None,
    ("GET", "/v2/health/ready"): None,
    ("POST", "/v1/models/{model}:predict"): Role.PREDICT,
    ("POST", "/v1/models/{model}/versions/{version}:predict"): Role.PREDICT,
    ("POST", "/v1/models/{model}/labels/{label}:predict"): Role.PREDICT,
    ("POST", "/v2/models/{model}/infer"): Role.PREDICT,
    ("POST", "/v2/models/{model}/versions/{version}/infer"): Role.PREDICT,
    ("POST", "/models/{model}/predict"): Role.PREDICT,
    ("GET", "/v1/models/{model}"): Role.PREDICT,
    ("GET", "/v1/models/{model}/versions/{version}"): Role.PREDICT,
    ("GET", "/v1/models/{model}/labels/{label}"): Role.PREDICT,
    ("GET", "/v1/models/{model}/metadata"): Role.PREDICT,
    ("GET", "/v1/models/{model}/versions/{version}/metadata"): Role.PREDICT,
    ("GET", "/v1/models/{model}/labels/{label}/metadata"): Role.PREDICT,
    ("GET", "/v2"): Role.PREDICT,
    ("GET", "/v2/models/{model}"): Role.PREDICT,
    ("GET", "/v2/models/{model}/versions/{version}"): Role.PREDICT,
    ("GET", "/v2/models/{model}/ready"): Role.PREDICT,
    ("GET", "/v2/models/{model}/versions/{version}/ready"): Role.PREDICT,
    ("GET", "/models"): Role.PREDICT,
    ("GET", "/openapi.json"): Role.PREDICT,
    ("GET", "/docs"): Role.PREDICT,
    ("POST", "/outcomes"): Role.LABEL,
    ("GET", "/metrics"): Role.OPERATE,
    ("GET", "/operate/state"): Role.OPERATE,
}
"""Method and route: the role it asks for, None where everybody may."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """How tokens of an identity provider are checked (OpenID Connect).

    Parameters
    ----------
    issuer, audience
        What ``iss`` and ``aud`` must be.
    jwks_url
        Where the provider publishes its keys.
    roles_claim
        Claim that lists roles.
    """

    issuer: str
    audience: str
    jwks_url: str
    roles_claim: str = "roles"


class Access:
    """Recognises clients and says what each may do.

    Parameters
    ----------
    keys
        sha256 of each API key in hex: who holds it.
    tokens
        How tokens are checked; None where there are none.
    open_as
        Who a client without a key is: only for a gateway that listens on the loopback.
    rate
        Requests a second of one client; None for no limit.
    burst
        Requests it may make at once.
    clock
        Monotonic seconds.
    file
        Where the keys are from, for `follow`; None where they stay as they are.
    """

    def __init__(
        self,
        keys: Mapping[str, Principal],
        tokens: Tokens | None,
        open_as: Principal | None,
        rate: float | None,
        burst: int,
        clock: Callable[[], float],
        file: Path | None = None,
    ) -> None:
        self._keys = dict(keys)
        self._file = file
        self._stamp: tuple[int, int] | None = None  # read once more at first: it may have been written since
        self.problem: str | None = None
        """Why the file of keys as it now is cannot be followed; None while it is in force."""
        self._tokens = tokens
        self._open_as = open_as
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._checked: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._provider: Any = None

    def follow(self) -> bool:
        """Put the file of keys in force when it was written anew; whether it was.

        The first key closes a gateway that was open to everybody. It does not open again by losing the last one, and a
        file that cannot be read changes nothing: `problem` says why.
        """
        stamp = _stamp(self._file)
        if self._file is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._keys = load_keys(self._file)
        except ConfigError as error:
            self.problem = str(error)
            return True
        self.problem = None
        if self._keys:
            self._open_as = None
        return True

    def admit(self, role: Role | None, credential: str | None) -> Principal:
        """Recognise a client and let it in.

        Parameters
        ----------
        role
            What the route asks for; None where everybody may.
        credential
            API key or token, as sent; None when nothing was.

        Raises
        ------
        Denied
            With the status to answer.
        """
        principal = ANYBODY if role is None else self._recognise(credential)
        if role is not None and not principal.may(role):
            raise Denied(403, f"{principal.client} lacks the role {role.value}")
        if role is not None:
            self._take(principal.client)
        return principal

    def _recognise(self, credential: str | None) -> Principal:
        if credential is None:
            if self._open_as is None:
                raise Denied(401, "no key or token; accepted: header X-API-Key or Authorization: Bearer")
            return self._open_as
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        # Every key is compared, in constant time each: how long it takes tells nothing about any of them.
        for known, principal in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = principal
        if found is not None:
            return found
        if self._tokens is not None and credential.count(".") == 2:
            return self._by_token(self._tokens, credential, digest)
        raise Denied(401, "unknown key or token")

    def _by_token(self, how: Tokens, token: str, digest: str) -> Principal:
        now = self._clock()
        kept = self._checked.get(digest)
        if kept is not None and now < kept[0]:
            return kept[1]
        import jwt

        if self._provider is None:
            self._provider = jwt.PyJWKClient(how.jwks_url, cache_keys=True, timeout=5)
        try:
            claims = jwt.decode(
                token,
                self._provider.get_signing_key_from_jwt(token).key,
                algorithms=list(ALGORITHMS),
                issuer=how.issuer,
                audience=how.audience,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Denied(401, f"token refused: {type(error).__name__}") from None
        told = claims.get(how.roles_claim, [])
        names = told.split() if isinstance(told, str) else told if isinstance(told, list) else []
        roles = frozenset(Role(name) for name in names if isinstance(name, str) and name in set(Role))
        principal = Principal(f"token:{str(claims['sub'])[:100]}", roles)
        self._checked[digest] = (now + TOKEN_CACHE_S, principal)
        while len(self._checked) > MOST_CACHED:
            self._checked.popitem(last=False)
        return principal

    def _take(self, client: str) -> None:
        """Take one from the client's bucket, which fills at the rate allowed."""
        if self._rate is None:
            return
        now = self._clock()
        left, since = self._buckets.get(client, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._rate)
        if left < 1:
            raise Denied(429, f"{client} asks more than {self._rate:g} times a second")
        self._buckets[client] = (left - 1, now)
        self._buckets.move_to_end(client)
        while len(self._buckets) > MOST_CACHED:
            self._buckets.popitem(last=False)


def _stamp(file: Path | None) -> tuple[int, int] | None:
    """What changes when a file is written anew; None without one."""
    if file is None:
        return None
    try:
        status = file.stat()
    except OSError:  # not there, or not to be read: `load_keys` says which
        return None
    return status.st_mtime_ns, status.st_ino


ANYBODY = Principal("anybody", frozenset())


def hashed(key: str) -> str:
    """What is kept of an API key: its sha256 in hex. Keys are random and long, so that a plain hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def load_keys(path: Path) -> dict[str, Principal]:
    """Read the file of hashed keys; empty when there is none.

    Raises
    ------
    ConfigError
        The file cannot be read as such.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; accepted: the file that run.py keys add writes") from None
    try:
        return {
            str(one["sha256"]): Principal(str(one["client"]), frozenset(Role(role) for role in one["roles"]))
            for one in told["keys"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error!r}; accepted: the file that run.py keys add writes") from None


def dump_keys(keys: Mapping[str, Principal]) -> str:
    """Inverse of `load_keys`: the file's text."""
    told = [
        {"client": one.client, "roles": sorted(role.value for role in one.roles), "sha256": digest}
        for digest, one in keys.items()
    ]
    return json.dumps({"keys": told}, indent=1) + "\n"


def credential_of(headers: Mapping[bytes, bytes]) -> str | None:
    """API key or token among a request's headers; None without one."""
    key = headers.get(b"x-api-key")
    if key is not None:
        return key.decode("latin-1")
    scheme, _, rest = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return rest.strip() if scheme.lower() == "bearer" and rest.strip() else None


def checked_rate(rate: float | None) -> float | None:
    """Refuse a rate that lets nobody in; ConfigError."""
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise ConfigError(f"rate {rate}; accepted: requests a second above 0, or none")
    return rate
