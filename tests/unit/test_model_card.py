"""A card claims nothing without its interval, and says where there was nothing to measure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from lifecycle.evaluation import BaselineScores, Estimate, Evaluation, evaluate
from lifecycle.fairness import RATES
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.gates import Decision, State, decide, judge_gates
from lifecycle.measures import PERFORMANCE
from lifecycle.model_card import (
    NO_DATA,
    Bullets,
    CardFacts,
    ModelCard,
    Paragraph,
    Picture,
    Section,
    Table,
    TuningFacts,
    build_card,
    estimate_text,
    group_rate,
    made_equal,
    measure_text,
    number,
    share_estimate,
)
from lifecycle.remedies import Outcome, Remedy
from lifecycle.snapshot import FetchCounts
from lifecycle.spec import ModelSpec

pytestmark = pytest.mark.requirement("R11.1")

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARITY, OPPORTUNITY, PREDICTIVE = RATES


def model(**changes: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "churn",
            "description": "Who leaves.",
            "owner": {"team": "Team A", "contact": "#a"},
            "tier": "main",
            "sensitivity": "sensitive",
            "source": {"table": "members", "timestamp": "ts", "entity_key": "id"},
            "label": {"column": "y", "meaning": "leaves", "delay": "30d"},
            "features": [
                {"name": "x", "type": "numeric", "min": 0, "max": 9, "unit": "year", "meaning": "age"},
                {"name": "low", "type": "numeric", "min": 1},
                {"name": "high", "type": "numeric", "max": 2},
                {"name": "any", "type": "numeric"},
                {"name": "c", "type": "categorical", "values": ["u", "w"], "labels": {"u": "upper"}},
                {"name": "open", "type": "categorical"},
            ],
            "after_event": ["left_on"],
            "sensitive": [{"name": "gender", "column": "g", "labels": {"f": "female"}}],
            "evaluation": {
                "gates": [
                    {"metric": "roc_auc", "min": 0.6},
                    {"metric": "roc_auc", "against": "prior", "min_difference": 0},
                    {"metric": PARITY, "over": ["gender"], "max": 0.05},
                ],
                "slices": ["c"],
                "bootstrap": 100,
                "min_group_rows": 50,
                "min_group_class_rows": 10,
                "min_rows": 100,
            },
            "business": {"currency": "EUR", "decision": "call", "true_positive": 12, "false_positive": -3},
            **changes,
        }
    )


@cache
def evaluation() -> Evaluation:
    """The women are decided positive more often; group x and slice w are too small to judge."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 420)
    frame = pd.DataFrame({"c": ["u"] * 400 + ["w"] * 20, "g": ["f"] * 200 + ["m"] * 200 + ["x"] * 20})
    scores = np.clip(labels * 0.3 + rng.uniform(0, 0.6, 420) + (frame["g"] == "f") * 0.1, 0, 1)
    baselines = {"prior": BaselineScores(np.full(420, 0.5), 0.5)}
    return evaluate(model(), frame, labels, scores, 0.5, baselines, 0, "hold-out 2025")


def facts(**changes: Any) -> CardFacts:
    return replace(
        CardFacts(
            version="7",
            identity={"snapshot": "abc", "seed": 3, "forced": False, "parent": None, "share": 0.123456},
            as_of=NOW,
            window="the 6mo from 2025-07-05",
            counts=FetchCounts(1_000, 50, 30, 920, 920),
            train_rows=500,
            holdout_rows=420,
        ),
        **changes,
    )


def card(
    spec: ModelSpec | None = None,
    about: CardFacts | None = None,
    measured: Evaluation | None = None,
    findings: list[Finding] | None = None,
    decision: Decision | None = None,
) -> ModelCard:
    spec, measured = spec or model(), measured or evaluation()
    found = judge_gates(spec, measured) if findings is None else findings
    return build_card(spec, about or facts(), measured, found, decision or decide(spec, found, [], NOW))


def section(of: ModelCard, title: str) -> Section:
    return next(one for one in of.sections if one.title == title)


def tables(of: Section) -> list[Table]:
    return [one for one in of.blocks if isinstance(one, Table)]


def sentences(of: Section) -> list[str]:
    return [
        text
        for block in of.blocks
        if isinstance(block, (Paragraph, Bullets))
        for text in ([block.text] if isinstance(block, Paragraph) else block.items)
    ]


def cell(table: Table, row: str, column: str) -> str:
    place = table.header.index(column)
    return next(one[place] for one in table.rows if one[0] == row)


def remedy(**changes: Any) -> Remedy:
    gaps = {PARITY: 0.2, OPPORTUNITY: None, PREDICTIVE: 0.1}
    return replace(
        Remedy(
            "gender",
            "threshold optimiser",
            "demographic_parity",
            PARITY,
            Outcome(gaps, 0.8, 4_000.0, {PARITY: (0.15, 0.25)}),
            Outcome({**gaps, PARITY: 0.01}, 0.75, 3_500.0, {PARITY: (0.0, 0.03)}),
            "EUR",
            ("x",),
            "Needs the group.",
        ),
        **changes,
    )


def test_a_card_says_what_it_is_for_who_answers_for_it_and_what_was_decided():
    whole = card()
    assert (whole.title, whole.lead, whole.verdict) == ("churn version 7", "Who leaves.", Verdict.FAIL)
    assert whole.verdict_text == "Rejected: 1 reason, listed below."
    assert [one.title for one in whole.sections] == [
        "What it is for",
        "Owner and version",
        "Gates and decision",
        "Measures",
        "Against baselines",
        "Slices",
        "Fairness",
        "Data",
        "Features",
        "Training",
        "Limits",
    ]
    (owner,) = tables(section(whole, "Owner and version"))
    assert cell(owner, "Owner", "Value") == "Team A, #a"
    assert cell(owner, "Sensitivity", "Value") == "sensitive"
    assert [cell(owner, name, "Value") for name in ("Snapshot", "Seed", "Forced", "Parent", "Share")] == [
        "abc",
        "3",
        "no",
        "none",
        "0.1235",
    ]
    purpose = " ".join(sentences(section(whole, "What it is for")))
    assert "a row leaves, for one decision: call. At a probability of 0.5 or more" in purpose
    assert "Worth of an outcome in EUR: right positive 12, wrong positive -3, right negative 0" in purpose
    assert "members" in purpose


def test_a_version_without_a_number_has_none_in_its_title():
    assert card(about=facts(version=None)).title == "churn"


@pytest.mark.parametrize(
    ("sensitivity", "who"), [("non_sensitive", "none"), ("sensitive", "one person"), ("critical", "a committee")]
)
def test_who_approves_follows_from_the_sensitivity(sensitivity: str, who: str):
    changes = {"sensitivity": sensitivity} | ({"sensitive": []} if sensitivity == "non_sensitive" else {})
    changes["evaluation"] = {"gates": [{"metric": "roc_auc", "min": 0.6}]}
    (owner,) = tables(section(card(model(**changes)), "Owner and version"))
    assert cell(owner, "Approval needed", "Value").startswith(who)


def test_only_a_rejected_version_is_not_for_deployment():
    warning = "Not for deployment: it was rejected, see the gates."
    approved = card(decision=Decision(State.APPROVED, ("every gate is passed",)))
    assert approved.verdict is Verdict.PASS
    assert approved.verdict_text == "Approved: every gate is passed."
    assert warning not in sentences(section(approved, "What it is for"))
    assert warning in sentences(section(card(), "What it is for"))


@pytest.mark.parametrize(("count", "said"), [(1, "1 recorded override."), (2, "2 recorded overrides.")])
def test_overrides_are_said_first_and_listed(count: int, said: str):
    overridden = tuple(f"gate {place}: by A until 2026-02-01" for place in range(count))
    whole = card(decision=Decision(State.APPROVED, ("as told",), overridden))
    assert whole.verdict_text == f"Approved with {said}"
    assert set(overridden) <= set(sentences(section(whole, "Gates and decision")))


@pytest.mark.requirement("R3.7")
def test_each_gate_stands_with_value_interval_bound_and_reason():
    findings = judge_gates(model(), evaluation())
    (gates,) = tables(section(card(), "Gates and decision"))
    assert len(gates.rows) == len(findings) == 3
    for row, one in zip(gates.rows, findings, strict=True):
        assert row[:2] == (measure_text(one.measure), one.subject)
        assert row[2] == estimate_text(Estimate(one.value, *(one.interval or (None, None))))
        assert row[3] == f"{one.direction.sign} {number(one.threshold)}"
        assert row[4:] == (one.verdict.label, one.reason)
    assert any("worst end" in text for text in sentences(section(card(), "Gates and decision")))


def test_a_gate_with_nothing_asked_and_nothing_measured_says_so():
    empty = Finding("f1", "all rows", None, None, Direction.AT_LEAST, "w", Verdict.NO_DATA, "12 rows")
    whole = card(findings=[empty], decision=Decision(State.REJECTED, ("12 rows",)))
    (gates,) = tables(section(whole, "Gates and decision"))
    assert gates.rows == (("F1", "all rows", NO_DATA, "", "no data", "12 rows"),)
    assert "Gates that could not be judged: F1 on all rows." in sentences(section(whole, "Limits"))
    assert not any("worst end" in text for text in sentences(section(whole, "Gates and decision")))


def test_every_measure_of_the_candidate_and_of_its_baselines_has_an_interval():
    table = tables(section(card(), "Measures"))[0]
    assert {row[0] for row in table.rows} == {measure_text(name) for name in PERFORMANCE}
    for row in table.rows:
        for claim in row[1:-1]:
            assert " to " in claim, row
            assert claim.endswith(")"), row
    assert cell(table, "Brier score", "Meaning").endswith("; lower is better")
    assert cell(table, "business value per 1,000", "Meaning").endswith("in EUR; higher is better")
    for row in tables(section(card(), "Against baselines"))[0].rows:
        assert " to " in row[1]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_missing_measure_is_said_and_never_a_number(value: float | None):
    measured = replace(evaluation(), metrics=dict.fromkeys(PERFORMANCE, Estimate(value)), confusion=None)
    whole = card(measured=measured)
    (table,) = tables(section(whole, "Measures"))
    assert {row[1] for row in table.rows} == {NO_DATA}
    assert "How far the probabilities are off on the hold-out was not measured." in sentences(section(whole, "Limits"))


def test_scores_that_are_no_probabilities_are_said():
    measured = replace(evaluation(), invalid_scores=1_234)
    assert "1,234 scores are no probabilities: nothing below has a value." in sentences(
        section(card(measured=measured), "Measures")
    )


def test_a_first_version_is_called_one_and_a_later_one_is_not():
    said = "There is no champion yet"
    table = evaluation().baselines["prior"]
    later = replace(evaluation(), baselines={"prior": table, "champion": table})
    assert said in " ".join(sentences(section(card(), "Against baselines")))
    assert said not in " ".join(sentences(section(card(measured=later), "Against baselines")))


def test_what_was_not_measured_has_no_empty_section():
    bare = replace(evaluation(), baselines={}, comparisons={}, slices=(), fairness={})
    titles = {one.title for one in card(measured=bare).sections}
    assert titles.isdisjoint({"Against baselines", "Slices"})
    assert sentences(section(card(measured=bare), "Fairness")) == ["No figures: the hold-out could not be scored."]
    plain = model(sensitive=[], evaluation={"gates": [{"metric": "roc_auc", "min": 0.6}]})
    assert "were not judged" in sentences(section(card(plain, measured=bare), "Fairness"))[0]


@pytest.mark.requirement("R5.6")
def test_each_group_has_its_rates_with_intervals_and_one_too_small_has_no_data():
    groups, gaps = tables(section(card(), "Fairness"))
    for rate in ("Share decided positive", "Recall", "Precision"):
        assert " to " in cell(groups, "female", rate)
        assert cell(groups, "x", rate) == NO_DATA
    assert cell(groups, "x", "Rows") == "20"
    for row in gaps.rows:
        assert " to " in row[1]
        assert row[3].startswith("x: ")
    assert "Groups too small to judge in at least one measure of fairness: x." in sentences(section(card(), "Limits"))


@pytest.mark.requirement("R5.6")
def test_groups_that_are_treated_too_differently_are_a_limit():
    told = [text for text in sentences(section(card(), "Limits")) if "more differently than accepted" in text]
    gap = evaluation().fairness["gender"].disparities[PARITY]
    assert told == [
        "It treats groups more differently than accepted: demographic parity difference on gender "
        f"{estimate_text(Estimate(gap.difference, gap.low, gap.high))}, accepted ≤ 0.05."
    ]
    fair = card(findings=[], decision=Decision(State.APPROVED, ("ok",)))
    assert not any("more differently" in text for text in sentences(section(fair, "Limits")))


@pytest.mark.requirement("R5.6")
def test_a_remedy_is_shown_with_what_it_changes_and_what_it_costs():
    recall = remedy(constraint="true_positive_rate_parity")
    about = facts(remedies=[remedy(), remedy(attribute="region"), recall])
    fairness = section(card(about=about), "Fairness")
    before = ("0.2 (0.15 to 0.25)", NO_DATA, "0.1 (no interval)", "0.8", "4,000 EUR")
    after = ("0.01 (0 to 0.03)", NO_DATA, "0.1 (no interval)", "0.75", "3,500 EUR")
    assert tables(fairness)[-1].rows == (
        ("gender: as it is", *before),
        ("gender: threshold optimiser, equal share decided positive", *after),
        ("gender: threshold optimiser, equal recall", *after),
        ("region: as it is", *before),
        ("region: threshold optimiser, equal share decided positive", *after),
    )
    told = sentences(fairness)
    assert told.count("Needs the group.") == 1
    assert "gender: groups too small to fit were left as they are: x." in told
    assert any("training.mitigation" in text for text in told)
    assert Picture("remedies", "Gaps and business value without and with each remedy.") in fairness.blocks


@pytest.mark.requirement("R5.6")
def test_a_mitigated_training_is_said_and_not_offered_again():
    mitigated = model(training={"mitigation": {"method": "reweighing", "attribute": "gender"}})
    told = sentences(section(card(mitigated, facts(remedies=[remedy(left_out=(), note="")])), "Fairness"))
    assert any("The training was mitigated: " in text and "gender" in text for text in told)
    assert not any("training.mitigation" in text for text in told)
    (settings,) = tables(section(card(mitigated), "Training"))
    assert cell(settings, "Mitigation", "Value").endswith(" on gender")


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("demographic_parity", "equal share decided positive"),
        ("true_positive_rate_parity", "equal recall"),
        ("equalized_odds", "equalized odds"),
    ],
)
def test_what_a_remedy_makes_equal_is_in_words(constraint: str, words: str):
    assert made_equal(remedy(constraint=constraint)) == words


def test_slices_too_small_or_below_a_bound_are_told():
    (table,) = tables(section(card(), "Slices"))
    place = [row[1] for row in table.rows].index("w")
    assert table.rows[place][4:8] == (NO_DATA, NO_DATA, NO_DATA, "no data")
    assert "1 of 2 slices are too small to judge (fewer than 50 rows, or one class): c = w." in sentences(
        section(card(), "Limits")
    )
    worse = replace(evaluation(), slices=tuple(replace(one, verdict=Verdict.WARN) for one in evaluation().slices))
    assert "Slices that miss a gate's bound: c = upper, c = w." in sentences(section(card(measured=worse), "Limits"))


def test_of_many_small_slices_ten_are_named():
    small = next(one for one in evaluation().slices if one.verdict is Verdict.NO_DATA)
    many = replace(evaluation(), slices=tuple(replace(small, label=f"v{place}") for place in range(11)))
    told = next(text for text in sentences(section(card(measured=many), "Limits")) if "too small" in text)
    assert told.endswith("c = v9 and others.")


@pytest.mark.requirement("R3.4")
def test_rows_left_out_are_counted_with_their_reason():
    (table,) = tables(section(card(), "Data"))
    assert [(row[0], row[1]) for row in table.rows] == [
        ("In the window", "1,000"),
        ("Left out: label not yet known", "50"),
        ("Left out: never labelled", "30"),
        ("Eligible", "920"),
        ("Used", "920"),
        ("Training part", "500"),
        ("Hold-out", "420"),
    ]
    assert "as-of 2026-01-01 00:00 UTC" in cell(table, "In the window", "Why")
    assert cell(table, "Used", "Why") == "all of them"
    assert any(text.startswith("30 rows (3.0%) never got a label") for text in sentences(section(card(), "Limits")))
    sampled = card(about=facts(counts=FetchCounts(1_000, 0, 0, 1_000, 920)))
    (table,) = tables(section(sampled, "Data"))
    assert "a seeded uniform sample" in cell(table, "Used", "Why")
    assert not any("never got a label" in text for text in sentences(section(sampled, "Limits")))


def test_data_checks_that_were_not_met_are_listed():
    met = Finding("x", "row count", 1.0, 1.0, Direction.AT_LEAST, "w", Verdict.PASS, "enough")
    checks = [met, replace(met, verdict=Verdict.WARN, reason="old"), replace(met, verdict=Verdict.NO_DATA, reason="?")]
    told = sentences(section(card(about=facts(quality=checks)), "Data"))
    assert told == ["1 of 3 data checks are met. The others:", "warn: old", "no data: ?"]
    assert sentences(section(card(about=facts(quality=[met])), "Data")) == ["1 of 1 data checks are met."]
    assert sentences(section(card(), "Data")) == []


def test_features_tell_type_unit_and_what_is_accepted():
    (table,) = tables(section(card(), "Features"))
    assert {row[0]: row[3] for row in table.rows} == {
        "x": "0 to 9",
        "low": "1 or more",
        "high": "2 or less",
        "any": "any number",
        "c": "u (upper), w",
        "open": "open list",
    }
    assert table.rows[0][:3] == ("x", "numeric", "year")
    assert table.rows[0][5] == "age"
    assert "never a feature: left_on." in sentences(section(card(), "Features"))[0]
    assert sentences(section(card(model(after_event=[])), "Features")) == []


def test_the_search_is_told_where_there_was_one():
    about = TuningFacts({"complete": 3, "pruned": 2}, {"learning_rate": 0.0012345, "units": 64}, (0.7, 0.8), 9, 4, 0.21)
    (table,) = tables(section(card(about=facts(tuning=about)), "Training"))
    assert dict(table.rows) == {
        "Split": "the newest rows are held out: 20%",
        "Folds": "5 inside the training part",
        "Seed": "0",
        "Trials": "3 complete, 2 pruned",
        "Best hyper-parameters": "learning rate 0.001234, units 64",
        "ROC AUC of the best trial on each fold": "0.7, 0.8",
        "Final fit": "4 networks averaged, 9 epochs each",
        "Decision threshold": "0.21, worth most on validation rows",
    }
    nothing = replace(about, trials={}, fold_aucs=())
    (table,) = tables(section(card(about=facts(tuning=nothing)), "Training"))
    assert cell(table, "Trials", "Value") == "none"
    assert cell(table, "ROC AUC of the best trial on each fold", "Value") == NO_DATA
    assert len(tables(section(card(), "Training"))[0].rows) == 3


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"strategy": "stratified"}, "held out at random, with the share of positives kept: 20%"),
        ({"strategy": "grouped", "group": "id"}, "whole groups of id are held out: 20%"),
    ],
)
def test_the_split_is_told_in_words(split: dict[str, str], said: str):
    (table,) = tables(section(card(model(training={"split": split})), "Training"))
    assert cell(table, "Split", "Value") == said


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "a|b\n# c", "\x00", "ب" * 5_000])
def test_texts_are_handed_on_as_they_are(hostile: str):
    whole = card(about=facts(identity={"reason": hostile}))
    (owner,) = tables(section(whole, "Owner and version"))
    assert cell(owner, "Reason", "Value") == hostile


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (-0.25, "-0.25"),
        (0.70271, "0.7027"),
        (999.96, "1000"),
        (1_000, "1,000"),
        (-12_345.6, "-12,346"),
        (1e-5, "1e-05"),
        (None, NO_DATA),
        (float("nan"), NO_DATA),
        (float("-inf"), NO_DATA),
    ],
)
def test_numbers_are_short_and_missing_ones_are_no_data(value: float | None, said: str):
    assert number(value) == said


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (None, NO_DATA),
        (Estimate(None, 0.1, 0.2), NO_DATA),
        (Estimate(0.5), "0.5 (no interval)"),
        (Estimate(0.5, 0.4), "0.5 (no interval)"),
        (Estimate(0.5, None, 0.6), "0.5 (no interval)"),
        (Estimate(0.5, 0.4, 0.6), "0.5 (0.4 to 0.6)"),
    ],
)
def test_an_estimate_stands_with_its_interval_or_says_it_has_none(estimate: Estimate | None, said: str):
    assert estimate_text(estimate) == said


@given(st.integers(1, 5_000).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))))
def test_a_share_has_the_interval_that_statsmodels_gives(counts: tuple[int, int]):
    part, whole = counts
    found = share_estimate(part, whole, 0.9)
    low, high = proportion_confint(part, whole, alpha=0.1, method="wilson")
    assert found.value == part / whole
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_a_share_of_nothing_has_no_value():
    assert share_estimate(0, 0) == Estimate(None)


@pytest.mark.parametrize("measure", RATES)
def test_a_groups_rate_is_the_one_that_was_measured(measure: str):
    rate, _ = RATES[measure]
    for group in evaluation().fairness["gender"].groups:
        assert group_rate(group, rate).value == getattr(group, rate)
