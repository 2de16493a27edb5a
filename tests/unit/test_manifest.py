"""A manifest is drawn from the model file, survives JSON, and names nothing that could leave its folder."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import ConfigError
from lifecycle.manifest import InputFeature, Manifest, check_names, describe
from tests.unit.test_twins import SPEC

pytestmark = pytest.mark.requirement("R2.3")
MADE = describe(SPEC, "3", {"content": "abc", "threshold": "0.25"}, "onnx", {"twin.onnx": "00"})


def test_it_says_what_the_model_file_says():
    assert (MADE.model, MADE.version, MADE.threshold, MADE.entity_key, MADE.backend) == ("m", "3", 0.25, "id", "onnx")
    assert [(one.name, one.kind) for one in MADE.features] == [
        ("x", "numeric"),
        ("kind", "categorical"),
        ("z", "numeric"),
    ]
    assert MADE.late_after == 7 * 86_400
    assert MADE.features[1] == InputFeature("kind", "categorical", None, None, (), "")


def test_it_survives_json_and_its_digest_names_all_of_it():
    assert Manifest.from_json(MADE.to_json()) == MADE
    assert Manifest.from_json(MADE.to_json()).digest == MADE.digest
    for change in ({"threshold": 0.26}, {"content": "abd"}, {"files": {"twin.onnx": "01"}}, {"entity_key": "x"}):
        assert dataclasses.replace(MADE, **change).digest != MADE.digest


@pytest.mark.requirement("R4.5")
def test_its_substance_is_what_decides_an_answer_and_no_word_about_it():
    for change in (
        {"threshold": 0.26},
        {"content": "abd"},
        {"files": {"twin.onnx": "01"}},
        {"backend": "tensorflow"},
        {"version": "4"},
        {"features": MADE.features[::-1]},
    ):
        assert dataclasses.replace(MADE, **change).substance != MADE.substance
    for words in ({"description": "x"}, {"meaning": "x"}, {"late_after": 1.0}):
        assert dataclasses.replace(MADE, **words).substance == MADE.substance


@pytest.mark.parametrize("tags", [{}, {"content": "abc"}, {"threshold": "0.5"}])
def test_a_version_without_its_tags_is_refused(tags: dict[str, str]):
    with pytest.raises(ConfigError, match="has no tag"):
        describe(SPEC, "3", tags, "onnx", {})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: b"", "not a manifest"),
        (lambda text: b"[]", "not a manifest"),
        (lambda text: text.replace(b'"format": 1', b'"format": 2'), "another format"),
        (lambda text: text.replace(b'"threshold"', b'"treshold"'), "not a manifest"),
        (lambda text: text.replace(b'"threshold": 0.25', b'"threshold": 1.5'), "accepted: 0 to 1"),
        (lambda text: text.replace(b'"threshold": 0.25', b'"threshold": NaN'), "accepted: 0 to 1"),
        (lambda text: text.replace(b'"model": "m"', b'"model": "../m"'), "lower-case letters"),
        (lambda text: text.replace(b'"version": "3"', b'"version": "../3"'), "a whole number"),
    ],
)
def test_what_is_no_manifest_is_refused(change, problem: str):
    with pytest.raises(ConfigError, match=problem):
        Manifest.from_json(change(MADE.to_json()))


@given(st.text(max_size=100))
def test_a_name_that_passes_is_plain(name: str):
    try:
        check_names(name)
    except ConfigError:
        return
    assert name.isascii()
    assert name.replace("_", "").isalnum()


@pytest.mark.parametrize("version", ["", "0", "01", "1.0", "-1", "1/..", "1\n", "one", "9" * 10])
def test_a_version_is_a_whole_number(version: str):
    with pytest.raises(ConfigError):
        check_names("m", version)
    check_names("m", "12")
