"""Secrets never reach a record."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.findings import Verdict
from lifecycle.records import RunState
from lifecycle.redaction import MAX_TEXT, plain, redacted

PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://ops:s3cret@db:5432/ops", "postgresql://ops:***@db:5432/ops"),
        ("POSTGRESQL+psycopg2://ops:s3cret@db/ops", "POSTGRESQL+psycopg2://ops:***@db/ops"),
        ("at redis://:s3cret@cache:6379 and s3://u:k@b", "at redis://:***@cache:6379 and s3://u:***@b"),
        ("x://u:a@b:c@host/d", "x://u:***@host/d"),
        ("host=db password=s3cret user=ops", "host=db password=*** user=ops"),
        ("Password: s3cret", "Password: ***"),
        ("passwd = 's3 cret', x=1", "passwd = ***, x=1"),
        ('{"db_password": "s3cret", "n": 1}', '{"db_password": ***, "n": 1}'),
        ("AWS_SECRET_ACCESS_KEY=abc/def+1", "AWS_SECRET_ACCESS_KEY=***"),
        ("api_key=abc123&tries=3", "api_key=***&tries=3"),
        ("apikey:abc", "apikey:***"),
        ("auth-token=abc;x", "auth-token=***;x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("authorization=Basic dTpw", "authorization=Basic ***"),
        ("sent bearer 0123456789abcdef0", "sent bearer ***"),
        ("key AKIAABCDEFGHIJKLMNOP was used", "key *** was used"),
        ("ghp_0123456789abcdefghijABCD", "***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- after", "*** after"),
        ("-----BEGIN PRIVATE KEY-----\nabc", "***"),
    ],
)
def test_a_secret_is_masked_and_the_rest_stays(text: str, kept: str) -> None:
    assert redacted(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "roc_auc on all rows is 0.71; accepted: ≥ 0.62",
        "sqlite:///var/ops.db",
        "postgresql://ops@db:5432/ops",
        "http://localhost:5000/#/models",
        "carrier=AA, origin=JFK",
        "the bearer of bad news",
        "passengers: 12, tokenizer=wordpiece, secretary: Ada",
        "ایران · مدل",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@given(st.sampled_from(["postgresql://ops:{}@db/ops", "pre password={}", 'x {{"api_key": "{}"}}']), PASSWORDS)
def test_no_password_survives(frame: str, password: str) -> None:
    if frame.startswith("pre"):
        password = "".join(char for char in password if char not in "\"',;&)}]") or "x-y-z"
    elif frame.startswith("x"):
        password = password.replace('"', "-")
    if password not in frame.replace("{}", "") and password != "***":
        assert password not in redacted(frame.format(password))


def test_what_databases_cannot_keep_is_replaced() -> None:
    assert redacted("a\0b") == "a\ufffdb"
    assert redacted("a\ud800b") == "a?b"


def test_a_text_at_the_limit_stays_and_a_longer_one_is_cut_and_says_so() -> None:
    assert redacted("x" * MAX_TEXT) == "x" * MAX_TEXT
    assert redacted("x" * (MAX_TEXT + 1)) == "x" * MAX_TEXT + "… (20,001 characters)"


@pytest.mark.parametrize("piece", ["a", "://", "a://b:", "password", "_", "token-", "bearer ", "-----BEGIN "])
def test_ten_megabytes_are_answered_like_any_other_text(piece: str) -> None:
    assert len(redacted(piece * (10_000_000 // len(piece)))) < 2 * MAX_TEXT


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
        ("password=x", "password=***"),
        (Verdict.NO_DATA, 2),
        (RunState.FAILED, "failed"),
        (datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00:00:00+00:00"),
        ((1, "a", None), [1, "a", None]),
        ([float("nan"), [2]], [None, [2]]),
        ({"a": {"b": "token=x"}}, {"a": {"b": "token=***"}}),
        ({1: 2}, {"1": 2}),
        (np.float64(0.25), 0.25),
        (np.float32("nan"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([1.0, np.nan]), [1.0, None]),
        (PurePosixPath("a/b"), "a/b"),
    ],
)
def test_values_become_plain_json(value: Any, kept: Any) -> None:
    found = plain(value)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    "key", ["password", "DB_PASSWORD", "db.password", "mlflow-token", "api_key", "secret", "tokens_x"]
)
def test_what_a_secretly_named_key_holds_is_masked_whole(key: str) -> None:
    assert plain({key: {"deep": [1]}}) == {key: "***"}
    assert plain({key: 7}) == {key: "***"}
    assert plain({key: None}) == {key: None}


@pytest.mark.parametrize("key", ["snapshot", "tokenizer", "secretary", "keys", "access", "passwordless"])
def test_what_any_other_key_holds_stays(key: str) -> None:
    assert plain({key: "x"}) == {key: "x"}


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(JSONISH)
def test_a_plain_value_is_strict_json_and_stays_what_it_is(value: Any) -> None:
    once = plain(value)
    assert json.loads(json.dumps(once, allow_nan=False)) == once
    assert plain(once) == once
