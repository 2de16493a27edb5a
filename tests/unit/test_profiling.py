"""Rules of a drafted model file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.errors import ConfigError, DataError
from lifecycle.profiling import ColumnProfile, TableProfile, draft
from lifecycle.spec import ModelSpec

pytestmark = pytest.mark.requirement("R3.5")


def table_of(frame: pd.DataFrame, kinds: dict[str, str] | None = None, table: str = "customers") -> TableProfile:
    """The profile of a whole frame; kinds not given follow from the types."""
    columns, sample = [], {}
    for name in frame:
        values = frame[name]
        kind = (kinds or {}).get(name) or {"f": "number", "i": "integer", "b": "boolean", "M": "time"}.get(
            values.dtype.kind, "text"
        )
        finite = values[np.isfinite(values)] if kind == "number" else values.dropna()
        bounded = kind in ("number", "integer") and len(finite)
        columns.append(
            ColumnProfile(
                name,
                kind,
                len(values),
                int(values.isna().sum()),
                values.nunique() if kind != "other" else 0,
                low=float(finite.min()) if bounded else None,
                high=float(finite.max()) if bounded else None,
                infinite=int(np.isinf(values).sum()) if kind == "number" else 0,
                longest=int(values.dropna().str.len().max() or 0) if kind == "text" and values.notna().any() else 0,
                type=kind,
            )
        )
        if kind == "time":
            sample[name] = pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]")
        elif kind == "boolean":
            sample[name] = values.map({True: "true", False: "false"}).astype(object)
        elif kind != "other":
            sample[name] = values.astype("float64" if kind in ("number", "integer") else object)
    return TableProfile(table, len(frame), tuple(columns), pd.DataFrame(sample))


def customers(number: int = 600, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = rng.random(number) < 0.3
    frame = {
        "customer_id": [f"C{i:05d}" for i in range(number)],
        "joined_at": pd.date_range("2023-01-01", periods=number, freq="6h"),
        "spend": rng.normal(size=number) + y,
        "plan": rng.choice(["basic", "plus"], number),
        "churned": y.astype(int),
    }
    return pd.DataFrame({**frame, **columns})


def drafted(frame: pd.DataFrame, label: str = "churned", **options) -> tuple[ModelSpec, str]:
    kinds = options.pop("kinds", None)
    text = draft("churn", table_of(frame, kinds), label, **options)
    return ModelSpec.model_validate(yaml.safe_load(text)), text


def left_out(text: str) -> dict[str, str]:
    lines = text.split("# Left out:\n")[1].split("\n\n")[0].splitlines() if "# Left out:" in text else []
    return dict(line.removeprefix("#   ").split(": ", 1) for line in lines)


def test_a_plain_table_becomes_a_model_with_its_time_and_key_found():
    spec, text = drafted(customers())
    assert (spec.source.timestamp, spec.source.entity_key) == ("joined_at", "customer_id")
    assert [(f.name, f.type) for f in spec.features] == [("spend", "numeric"), ("plan", "categorical")]
    assert (spec.label.column, spec.label.positive) == ("churned", 1)
    assert text.count("to be decided") >= 6
    assert {gate.against for gate in spec.evaluation.gates} == {None, "prior", "logistic_regression", "champion"}


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("nothing", [None] * 600, "it has no value"),
        ("always", [7] * 600, "constant"),
        ("rarely", [1.5, 2.5, *[np.nan] * 598], "99.7% missing"),
        ("row", range(600), "identifier: nearly every row has its own whole number"),
        ("account_no", [i * 7_919 % 1_000_003 for i in range(600)], "identifier: nearly every row"),
        ("mail", [f"p{i}@example.org" for i in range(600)], "identifier or free text"),
        ("notes", ["word " * 60 + str(i % 5) for i in range(600)], "free text of up to 301 characters"),
        ("left_at", pd.date_range("2024-01-01", periods=600, freq="h"), "a further time"),
        ("left_on", ["2024-01-01", "2024-01-02 10:00:00"] * 300, "a further time"),
        ("tags", ["x"] * 600, "its type, other, is neither"),
    ],
)
def test_what_cannot_be_a_feature_is_left_out_with_its_reason(name, values, why):
    spec, text = drafted(
        customers(**{name: values}), kinds={"tags": "other"}, timestamp="joined_at", entity="customer_id"
    )
    assert name not in spec.feature_names
    assert why in left_out(text)[name]


def test_suspected_leaks_are_flagged_with_their_area_and_not_used():
    frame = customers()
    frame["refund"] = np.where(frame["churned"] == 1, 5.0 + frame["spend"], np.nan)
    frame["state"] = np.where(frame["churned"] == 1, "closed", "open")
    spec, text = drafted(frame)
    assert set(spec.after_event) == {"refund", "state"}
    assert "refund" not in spec.feature_names
    assert "AUC of 1.000" in left_out(text)["refund"]


def test_numbers_get_a_range_with_slack_and_few_whole_numbers_are_categories():
    rng = np.random.default_rng(1)
    frame = customers(visits=rng.integers(0, 4, 600), age=rng.integers(18, 80, 600), change=rng.uniform(-1, 1, 600))
    spec, _ = drafted(frame)
    features = {feature.name: feature for feature in spec.features}
    assert features["visits"].type == "categorical"
    assert features["age"].min == 0
    assert features["age"].max >= 110
    assert features["change"].min <= -1.9
    assert features["change"].max >= 1.9


def test_a_share_of_missing_values_is_allowed_for_with_slack():
    frame = customers(bonus=[np.nan, 1.0, 2.0] * 200)
    bonus = next(feature for feature in drafted(frame)[0].features if feature.name == "bonus")
    assert 0.33 < bonus.max_missing < 0.6


def test_infinities_are_read_as_missing():
    frame = customers(rate=[np.inf, -np.inf, *np.linspace(0, 1, 598)])
    spec, _ = drafted(frame)
    assert spec.source.derived["rate_read"] == 'CASE WHEN abs("rate") < 1e300 THEN "rate" END'
    assert next(f for f in spec.features if f.name == "rate_read").max == 1.5


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        ([0, 1, 1], 1),
        ([0.0, 1.0, 1.0], 1),
        ([1, 2, 2], 1),
        ([1, 1, 2], 2),
        (["no", "no", "yes"], "yes"),
        ([True, True, False], False),
        ([True, False, False], True),
        (["a", "b", "c", "b", "a", "b"], "c"),
        (['say "x"\n', "b", "b"], 'say "x"\n'),
    ],
)
def test_the_positive_class_is_one_of_zero_and_one_and_else_the_rarest(values, positive):
    frame = customers(churned=(values * 600)[:600])
    spec, _ = drafted(frame)
    assert spec.label.positive == positive
    assert type(spec.label.positive) is type(positive)


@pytest.mark.parametrize(
    ("changes", "options", "kind", "message"),
    [
        ({}, {"label": "churnd"}, DataError, "--label churnd: no such column in customers; accepted: customer_id, joined"),
        ({}, {"label": "spend"}, DataError, "--label spend has 600 distinct values .*: not a class; .*CASE WHEN"),
        ({}, {"label": "joined_at"}, DataError, "--label joined_at is a time"),
        ({"churned": [0.25, 0.75] * 300}, {}, DataError, "--label churned holds fractions"),
        ({"churned": 1}, {}, DataError, "--label churned has 1 distinct values; accepted: at least two"),
        ({"seen": pd.Timestamp("2024-01-01")}, {}, DataError, "2 times; pass --timestamp .*: joined_at, seen"),
        ({"joined_at": "soon"}, {}, DataError, "no time column, and without one .*; accepted: a column with the time"),
        ({}, {"timestamp": "plan"}, DataError, "--timestamp plan is text; accepted: a timestamp, a date, or text as"),
        ({"other_id": range(600)}, {}, DataError, "2 unique columns; pass --entity with its key: customer_id, other_id"),
        ({"customer_id": "same"}, {}, DataError, "no column with a value of its own for each row; accepted: --entity"),
        ({}, {"entity": "plan"}, DataError, "--entity plan has 2 distinct values and 0 nulls in 600 rows; accepted"),
    ],
)  # fmt: skip
def test_a_draft_that_cannot_be_made_says_what_to_pass(changes, options, kind, message):
    with pytest.raises(kind, match=message):
        drafted(customers(**changes), **options)


def test_a_table_with_nothing_but_key_time_and_label_is_refused_with_reasons():
    with pytest.raises(DataError, match=r"no column that can be a feature \(always: constant\)"):
        drafted(customers(always=1).drop(columns=["spend", "plan"]))


def test_an_empty_table_and_names_the_schema_does_not_accept_are_refused():
    with pytest.raises(DataError, match=r"customers is empty"):
        drafted(customers().iloc[:0])
    with pytest.raises(ConfigError, match="model name 'My Model'; accepted: a small letter"):
        draft("My Model", table_of(customers()), "churned")
    with pytest.raises(ConfigError, match=r"table name 'my table'; accepted: .*view"):
        draft("m", table_of(customers(), table="my table"), "churned")


def test_names_the_schema_does_not_accept_become_derived_columns_without_clashes():
    frame = customers().rename(columns={"customer_id": "Customer ID", "plan": "2nd plan"})
    frame["naïve?"], frame["unit price"], frame["Unit_Price"], frame["on"] = (
        1.5 * frame["spend"],
        frame["spend"],
        -frame["spend"],
        frame["spend"],
    )
    spec, _ = drafted(frame)
    assert spec.source.entity_key == "customer_id"
    assert spec.source.derived["customer_id"] == '"Customer ID"'
    assert {"c_2nd_plan", "na_ve", "unit_price_2", "Unit_Price", "on"} <= set(spec.feature_names)
    assert (
        len({name.casefold() for name in [*spec.source.derived, *frame]}) == len(spec.source.derived) + frame.shape[1]
    )


def test_a_time_held_as_text_is_read_through_a_cast():
    frame = customers()
    frame["joined_at"] = frame["joined_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    spec, _ = drafted(frame)
    assert spec.source.derived[spec.source.timestamp] == 'CAST("joined_at" AS TIMESTAMP)'


def test_the_window_grows_until_it_holds_enough_rows():
    assert drafted(customers(joined_at=pd.date_range("2023-01-01", periods=600, freq="h")))[0].source.window == "6mo"
    assert drafted(customers(joined_at=pd.date_range("2013-01-01", periods=600, freq="3D")))[0].source.window == "5y"


@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        ({}, "time"),
        ({"churned": [0] * 300 + [1] * 180 + [0] * 120}, "stratified"),
        (
            {"joined_at": [*pd.date_range("2023-01-01", periods=300, freq="6h"), *[pd.Timestamp("2023-04-01")] * 300]},
            "stratified",
        ),
    ],
)
def test_rows_are_split_by_time_unless_the_newest_would_prove_nothing(changes, strategy):
    assert drafted(customers(**changes))[0].training.split.strategy == strategy


def test_a_small_table_gets_limits_it_can_meet():
    spec, _ = drafted(customers(200))
    assert spec.quality.min_rows <= 200
    assert spec.evaluation.min_rows <= 40


@given(st.text(min_size=1, max_size=12).filter(lambda name: "\x00" not in name), st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_whatever_columns_and_labels_are_called_the_draft_is_a_valid_file(name, positive):
    frame = customers(120).drop(columns=["plan"])
    frame[f"x{name}"] = frame["spend"] * 2
    frame["churned"] = np.where(frame["churned"] == 1, positive, "-" + positive)
    spec, _ = drafted(frame, entity="customer_id")
    assert len(spec.features) == 2
