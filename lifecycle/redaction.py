"""Secrets taken out of what is kept or shown: passwords in URLs, keys, tokens."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

MASK = "***"
MAX_TEXT = 20_000

_WORDS = (
    r"(?:passwords?|passwd|passphrase|pwd|secrets?|tokens?|credentials?"
    r"|api[_-]?keys?|access[_-]?keys?|private[_-]?keys?)"
)
# Bounded repetitions: a long string without a match must not cost the square of its length.
_NAMED = re.compile(rf"(?:.*[\W_])?{_WORDS}(?:[\W_].*)?", re.IGNORECASE | re.DOTALL)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Up to the last @ of the word: a password may itself hold an @ that nobody escaped.
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@]{0,200}:)\S{1,500}@", re.IGNORECASE), rf"\1{MASK}@"),
    (
        re.compile(r"(\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:bearer|basic)?\s{0,3})[^\s\"',]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (re.compile(r"(\bbearer\s{1,3})[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1{MASK}"),
    (
        re.compile(
            rf"((?<![A-Za-z0-9])(?:[A-Za-z0-9]{{1,30}}[_-]){{0,3}}{_WORDS}(?:[_-][A-Za-z0-9]{{1,30}}){{0,2}}[\"']?\s{{0,3}}[=:]\s{{0,3}})"
            r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&\"')}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}\b"), MASK),
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        MASK,
    ),
)


def redacted(text: str) -> str:
    r"""Text fit to be kept: secrets masked, NUL and lone surrogates replaced, cut at `MAX_TEXT` characters.

    >>> redacted("cannot reach postgresql://ops:s3cret@db:5432/ops")
    'cannot reach postgresql://ops:***@db:5432/ops'
    >>> redacted("api_key=abc123, tries=3")
    'api_key=***, tries=3'
    """
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}… ({len(text):,} characters)"
    # PostgreSQL keeps neither NUL nor half a character.
    text = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def plain(value: Any) -> Any:
    """JSON-ready copy of a value with its secrets masked, by name of the key or by look.

    Numbers that JSON does not know (NaN, infinities) become None; what is no JSON value becomes its text.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {
            redacted(str(key)): MASK if _NAMED.fullmatch(str(key)) and item is not None else plain(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    return redacted(str(value))
