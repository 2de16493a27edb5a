"""The gateway's policy is closed, and what is shipped is what holds without a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.model_files import InvalidFileError, load_file
from adapters.services import SERVING, serving_policy
from lifecycle.serving_policy import Fsync, Limits, ServingPolicy
from serving.gateway import Options
from serving.outcomes import MOST_REMEMBERED


def test_the_shipped_file_says_every_key_and_what_holds_without_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(SERVING, raising=False)
    shipped = serving_policy()
    assert shipped == ServingPolicy()
    assert shipped.model_fields_set == set(ServingPolicy.model_fields)
    for section in (shipped.limits, shipped.recording, shipped.archive):
        assert section.model_fields_set == set(type(section).model_fields)


def test_a_gateway_without_a_policy_behaves_as_with_the_shipped_one():
    policy = ServingPolicy()
    assert Options() == Options(
        policy.recording.answer_unrecorded,
        policy.limits.body_bytes,
        policy.limits.body_seconds,
        policy.follow_seconds,
        policy.recording.remembered,
    )
    assert policy.recording.remembered == MOST_REMEMBERED
    assert policy.recording.fsync is Fsync.EVERY_GROUP


def test_another_file_is_read_where_the_variable_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "serving.yaml"
    path.write_text("limits: {rate: 5}\n")
    monkeypatch.setenv(SERVING, str(path))
    assert serving_policy() == ServingPolicy(limits=Limits(rate=5))


def test_what_is_wrong_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "serving.yaml"
    path.write_text("limits:\n  burst: 0\n  bursts: 3\nrecording: {fsync: sometimes}\n")
    with pytest.raises(InvalidFileError) as error:
        load_file(path, ServingPolicy, {})
    told = str(error.value)
    assert "serving.yaml:2: limits.burst: is 0" in told
    assert "did you mean 'burst'" in told
    assert "'every_group', 'interval' or 'never'" in told


@pytest.mark.parametrize(
    "values",
    [
        {"limits": {"rate": 0}},
        {"limits": {"body_bytes": 0}},
        {"limits": {"body_seconds": 0}},
        {"recording": {"segment_bytes": 100}},
        {"recording": {"segment_seconds": -1}},
        {"recording": {"remembered": 0}},
        {"archive": {"every_seconds": 0}},
        {"host": ""},
        {"follow_seconds": float("nan")},
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(values: dict[str, Any]):
    with pytest.raises(ValidationError):
        ServingPolicy(**values)
