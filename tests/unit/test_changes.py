"""How big a change is follows from what both versions were made from, whatever is changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.model_files import load_model
from lifecycle.changes import FIRST, LARGE, MEDIUM, SAME, TOLD, UNKNOWN, ChangeSize, size_of_change
from lifecycle.spec import ModelSpec

pytestmark = pytest.mark.requirement("R10.3")
MADE = load_model("employment").model_dump(mode="json")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The model file with another value at a dotted path; a number is a place in a list."""
    after = copy.deepcopy(MADE)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = after
    for part in parents:
        place = place[part]
    place[last] = value
    return after


@pytest.mark.parametrize(
    ("path", "value", "size", "reason"),
    [
        ("features.0.type", "categorical", ChangeSize.LARGE, "features."),
        ("features.0.max_missing", 0.5, ChangeSize.LARGE, ".max_missing: "),
        ("features.0.meaning", "another text", ChangeSize.SMALL, ".meaning: "),
        ("features", MADE["features"][1:], ChangeSize.LARGE, "left out"),
        ("features", MADE["features"][::-1], ChangeSize.LARGE, "features: in another order"),
        ("label.delay", "9d", ChangeSize.LARGE, "label.delay: "),
        ("label.meaning", "another text", ChangeSize.SMALL, "label.meaning: "),
        ("sensitivity", "critical", ChangeSize.LARGE, "critical now"),
        ("sensitive", [], ChangeSize.LARGE, "sensitive."),
        ("source.where", "age > 3", ChangeSize.LARGE, "source.where: "),
        ("source.window", "1y", ChangeSize.MEDIUM, "source.window: "),
        ("training.patience", 99, ChangeSize.MEDIUM, "training.patience: "),
        ("training.search.units", [1], ChangeSize.MEDIUM, "training.search.units: "),
        ("training.seed", 99, ChangeSize.SMALL, "training.seed: "),
        ("evaluation.gates", [], ChangeSize.MEDIUM, "evaluation.gates: "),
        ("business.true_positive", 99.0, ChangeSize.MEDIUM, "business.true_positive: "),
        ("owner.team", "Others", ChangeSize.SMALL, "owner.team: "),
    ],
)
def test_what_was_changed_decides_the_size_and_is_named(path: str, value: Any, size: ChangeSize, reason: str):
    found = size_of_change("1", MADE, changed(path, value))
    assert found.size is size
    assert reason in " ".join(found.reasons)


def test_a_feature_is_known_by_its_name_whatever_it_is_called():
    def named(name: str) -> dict[str, Any]:
        return changed("features.0.name", name)

    for name in ("owner", "description", "meaning", "labels"):
        assert size_of_change("1", MADE, named(name)).size is ChangeSize.LARGE
        assert size_of_change("1", named(name), MADE).size is ChangeSize.LARGE


def test_other_data_alone_is_small_a_first_version_and_one_of_unknown_making_are_large():
    assert size_of_change("1", MADE, copy.deepcopy(MADE)).reasons == (SAME,)
    assert size_of_change(None, None, MADE).reasons == (FIRST,)
    assert size_of_change("1", None, MADE).reasons == size_of_change("1", MADE, None).reasons == (UNKNOWN,)
    assert size_of_change("1", None, MADE).size is size_of_change(None, None, MADE).size is ChangeSize.LARGE


def test_the_weightiest_reason_comes_first():
    after = changed("training.patience", 99)
    after["description"], after["label"]["delay"] = "x" * 99, "9d"
    found = size_of_change("1", MADE, after)
    assert [reason.partition(":")[0] for reason in found.reasons] == ["label.delay", "training.patience", "description"]
    assert len(found.reasons[2]) < 120


def test_every_key_of_the_model_file_has_its_size():
    known = LARGE | MEDIUM | TOLD
    below = {f"source.{name}" for name in MADE["source"]}
    missing = (set(ModelSpec.model_fields) - {"source"} | below) - known
    assert missing == set()


@given(st.lists(st.sampled_from([("training.patience", 99), ("owner.team", "x"), ("label.delay", "9d")]), unique=True))
def test_the_biggest_of_many_changes_decides(changes: list[tuple[str, Any]]):
    after = copy.deepcopy(MADE)
    for path, value in changes:
        section, key = path.split(".")
        after[section][key] = value
    order = list(ChangeSize)
    alone = [size_of_change("1", MADE, changed(path, value)).size for path, value in changes]
    assert size_of_change("1", MADE, after).size is max(alone, key=order.index, default=ChangeSize.SMALL)
