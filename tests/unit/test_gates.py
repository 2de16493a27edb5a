"""No missing number passes a gate, nobody passes by skipping one, and an override lets exactly one through."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.evaluation import Estimate, Evaluation
from lifecycle.fairness import AttributeFairness, Disparity
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.gates import Decision, State, decide, judge_gates
from lifecycle.metrics import NAMES
from lifecycle.records import OverrideRecord
from lifecycle.spec import ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R3.7", "R7.3")

NOW = datetime(2024, 5, 1, tzinfo=UTC)
BOUND = {"metric": "roc_auc", "min": 0.7}
LOW = {"metric": "brier", "max": 0.2}
FAIR = {"metric": "demographic_parity_difference", "over": ["gender", "region"], "max": 0.05}
CHAMPION = {"metric": "roc_auc", "against": "champion", "min_difference": -0.01}
PRIOR = {"metric": "log_loss", "against": "prior", "min_difference": 0.1}


def model(*gates: dict[str, Any], **rules: Any) -> ModelSpec:
    return minimal_spec(
        sensitivity="sensitive",
        sensitive=[{"name": "gender", "column": "g"}, {"name": "region", "column": "r"}],
        evaluation={"gates": list(gates), "min_rows": 100, **rules},
    )


def parity(difference: float | None = 0.02, **changes: Any) -> AttributeFairness:
    missing = difference is None
    disparity = Disparity(
        measure="demographic_parity_difference",
        difference=difference,
        low=None if missing else difference / 2,
        high=None if missing else difference * 2,
        highest=None if missing else "men",
        lowest=None if missing else "women",
        highest_value=None if missing else 0.5,
        lowest_value=None if missing else 0.5 - difference,
        judged=("men",) if missing else ("men", "women"),
        no_data={},
        smallest=250,
    )
    return AttributeFairness("any", (), {disparity.measure: replace(disparity, **changes)})


def evaluation(**changes: Any) -> Evaluation:
    given: dict[str, Any] = {
        "rows": 100,
        "positives": 40,
        "invalid_scores": 0,
        "window": "hold-out",
        "threshold": 0.5,
        "confidence": 0.9,
        "resamples": 100,
        "seed": 0,
        "currency": "EUR",
        "metrics": {name: Estimate(0.75, 0.6, 0.9) for name in NAMES} | {"brier": Estimate(0.15, 0.1, 0.3)},
        "comparisons": {
            "champion": {"roc_auc": Estimate(0.02, -0.005, 0.05)},
            "logistic_regression": {"roc_auc": Estimate(0.001, -0.03, 0.04)},
            "prior": {"log_loss": Estimate(0.2, 0.15, 0.25), "roc_auc": Estimate(0.25, 0.2, 0.3)},
        },
        "fairness": {"gender": parity(), "region": parity()},
    }
    return Evaluation(**{**given, **changes})


def only(spec: ModelSpec, evaluated: Evaluation) -> Finding:
    (finding,) = judge_gates(spec, evaluated)
    return finding


# Bounds


def test_a_bound_is_judged_on_the_value_and_shows_its_interval():
    finding = only(model(BOUND), evaluation())
    assert finding == Finding(
        measure="roc_auc",
        subject="all rows",
        value=0.75,
        threshold=0.7,
        direction=Direction.AT_LEAST,
        window="hold-out",
        verdict=Verdict.PASS,
        reason="roc_auc on all rows is 0.75, ≥ 0.7 as asked",
        count=100,
        interval=(0.6, 0.9),
    )


@pytest.mark.parametrize(
    ("gate", "estimate", "verdict"),
    [
        (BOUND, Estimate(0.7, 0.5, 0.9), Verdict.PASS),
        (BOUND, Estimate(0.6999, 0.5, 0.9), Verdict.FAIL),
        ({**BOUND, "severity": "warning"}, Estimate(0.6999, 0.5, 0.9), Verdict.WARN),
        (BOUND, Estimate(0.8), Verdict.PASS),
        (BOUND, Estimate(None), Verdict.NO_DATA),
        (BOUND, Estimate(math.nan), Verdict.NO_DATA),
        (LOW, Estimate(0.2, 0.1, 0.3), Verdict.PASS),
        (LOW, Estimate(0.2001, 0.1, 0.3), Verdict.FAIL),
        (LOW, Estimate(None), Verdict.NO_DATA),
    ],
)
def test_a_bound_accepts_its_own_value_and_nothing_missing(gate, estimate: Estimate, verdict: Verdict):
    finding = only(model(gate), evaluation(metrics={gate["metric"]: estimate}))
    assert finding.verdict is verdict
    assert finding.interval == (None if estimate.low is None else (estimate.low, estimate.high))


def test_a_measure_that_was_not_taken_is_no_data_and_says_so():
    finding = only(model(BOUND), evaluation(metrics={}))
    assert finding.verdict is Verdict.NO_DATA
    assert finding.reason == "roc_auc on all rows: roc_auc is not defined on these rows and decisions"
    assert finding.count == 100


# What makes a hold-out useless

USELESS = {
    "99 rows in the hold-out, 100 needed to judge": {"rows": 99},
    "0 rows in the hold-out, 100 needed to judge": {"rows": 0, "positives": 0},
    "3 of 100 scores are no probabilities (NaN or outside 0..1)": {"invalid_scores": 3},
    "all 100 rows of the hold-out have one label; both are needed to judge": {"positives": 0},
    "all 100 rows of the hold-out have one label; both are needed to judge ": {"positives": 100},
}


@pytest.mark.parametrize("why", USELESS)
def test_a_useless_hold_out_judges_nothing_whatever_its_numbers(why: str):
    findings = judge_gates(model(BOUND, FAIR, CHAMPION, PRIOR), evaluation(**USELESS[why]))
    assert [(finding.measure, finding.subject) for finding in findings] == [
        ("roc_auc", "all rows"),
        ("demographic_parity_difference", "gender"),
        ("demographic_parity_difference", "region"),
        ("roc_auc against champion", "all rows"),
        ("log_loss against prior", "all rows"),
    ]
    for finding in findings:
        assert finding.verdict is Verdict.NO_DATA
        assert finding.value is None
        assert why.strip() in finding.reason


# Groups


@pytest.mark.requirement("R5.6")
def test_each_attribute_has_its_own_finding_that_names_the_two_groups():
    findings = judge_gates(model(FAIR), evaluation(fairness={"gender": parity(0.08), "region": parity(0.05)}))
    first, second = findings
    assert (first.subject, first.verdict, first.value, first.threshold) == ("gender", Verdict.FAIL, 0.08, 0.05)
    assert first.reason == ("demographic_parity_difference on gender is 0.08; accepted: ≤ 0.05: men 0.5, women 0.42")
    assert (first.count, first.interval, first.direction) == (250, (0.04, 0.16), Direction.AT_MOST)
    assert (second.subject, second.verdict) == ("region", Verdict.PASS)


@pytest.mark.requirement("R5.6")
def test_groups_too_small_are_named_beside_a_verdict_on_the_others():
    small = parity(no_data={"x": "3 rows, 200 needed", "y": "9 rows, 200 needed"})
    first, _ = judge_gates(model(FAIR), evaluation(fairness={"gender": small, "region": parity()}))
    assert first.verdict is Verdict.PASS
    assert first.reason.endswith("; no data: x: 3 rows, 200 needed; y: 9 rows, 200 needed")


@pytest.mark.requirement("R5.6")
def test_too_few_groups_to_compare_are_no_data_with_what_was_lacking():
    few = parity(None, no_data={"x": "3 rows, 200 needed"})
    none = parity(None, judged=(), smallest=0)
    first, second = judge_gates(model(FAIR), evaluation(fairness={"gender": few, "region": none}))
    assert (first.verdict, first.interval) == (Verdict.NO_DATA, None)
    assert first.reason == (
        "demographic_parity_difference on gender: two groups large enough are needed, judged: men; "
        "too small: x: 3 rows, 200 needed"
    )
    assert second.reason.endswith("judged: none; too small: none")
    assert second.count == 0


@pytest.mark.requirement("R5.6")
def test_groups_that_were_never_compared_are_no_data():
    other = AttributeFairness("region", (), {})
    for finding in judge_gates(model(FAIR), evaluation(fairness={"region": other})):
        assert (finding.verdict, finding.count) == (Verdict.NO_DATA, 0)
        assert finding.reason == f"demographic_parity_difference on {finding.subject}: no groups were compared"


@pytest.mark.requirement("R5.6")
def test_a_gap_at_a_warning_gate_warns():
    first, _ = judge_gates(
        model({**FAIR, "severity": "warning"}), evaluation(fairness={"gender": parity(0.2), "region": parity()})
    )
    assert first.verdict is Verdict.WARN


# Baselines


@pytest.mark.parametrize(
    ("low", "verdict"), [(-0.01, Verdict.PASS), (-0.0101, Verdict.FAIL), (0.5, Verdict.PASS), (None, Verdict.NO_DATA)]
)
def test_an_improvement_is_judged_on_the_unfavourable_end_of_its_interval(low, verdict: Verdict):
    compared = {"champion": {"roc_auc": Estimate(0.02, low, None if low is None else 0.6)}}
    finding = only(model(CHAMPION), evaluation(comparisons=compared))
    assert (finding.verdict, finding.value, finding.threshold) == (verdict, low, -0.01)
    assert finding.direction is Direction.AT_LEAST
    assert (finding.measure, finding.count) == ("roc_auc against champion", 100)


def test_the_reason_of_an_improvement_names_both_ends_and_the_rule():
    good = only(model(CHAMPION), evaluation())
    assert good.reason == (
        "roc_auc improves on champion by 0.02, at worst -0.005 (90% interval); asked: ≥ -0.01, as asked"
    )
    assert good.interval == (-0.005, 0.05)
    bad = only(model(PRIOR | {"min_difference": 0.16}), evaluation())
    assert bad.verdict is Verdict.FAIL
    assert bad.reason.endswith("at worst 0.15 (90% interval); asked: ≥ 0.16, not accepted")


def test_a_value_without_interval_is_no_data_against_a_baseline():
    finding = only(model(CHAMPION), evaluation(comparisons={"champion": {"roc_auc": Estimate(0.3)}}))
    assert finding.verdict is Verdict.NO_DATA
    assert finding.reason == "roc_auc against champion on all rows: no paired comparison with champion"


@pytest.mark.parametrize("comparisons", [{}, {"prior": {}}, {"prior": {"log_loss": Estimate(None)}}])
def test_a_baseline_that_is_missing_is_no_data(comparisons):
    finding = only(model(PRIOR), evaluation(comparisons=comparisons))
    assert finding.verdict is Verdict.NO_DATA
    assert finding.reason == "log_loss against prior on all rows: no paired comparison with prior"


def test_a_warning_against_a_baseline_warns():
    gate = {**CHAMPION, "min_difference": 0.0, "severity": "warning"}
    assert only(model(gate), evaluation()).verdict is Verdict.WARN


# The first version


@pytest.mark.parametrize(("against", "verdict"), [("prior", Verdict.PASS), ("logistic_regression", Verdict.FAIL)])
def test_without_a_champion_the_first_version_rule_takes_its_place_and_says_so(against: str, verdict: Verdict):
    compared = {name: table for name, table in evaluation().comparisons.items() if name != "champion"}
    finding = only(model(CHAMPION, first_version={"against": against}), evaluation(comparisons=compared))
    assert (finding.verdict, finding.measure) == (verdict, "roc_auc against champion")
    assert f"improves on {against} by" in finding.reason
    assert finding.reason.endswith(f"(first version, no champion yet: compared with {against})")


def test_a_first_version_without_its_baseline_is_no_data():
    finding = only(model(CHAMPION), evaluation(comparisons={}))
    assert finding.verdict is Verdict.NO_DATA
    assert finding.reason == (
        "roc_auc against champion on all rows: no paired comparison with logistic_regression "
        "(first version, no champion yet: compared with logistic_regression)"
    )


def test_a_champion_that_could_not_be_scored_is_not_a_first_version():
    compared = {**evaluation().comparisons, "champion": dict.fromkeys(NAMES, Estimate(None))}
    finding = only(model(CHAMPION, first_version={"against": "prior"}), evaluation(comparisons=compared))
    assert finding.verdict is Verdict.NO_DATA
    assert "first version" not in finding.reason


def test_the_first_version_rule_is_for_champion_gates_only():
    finding = only(model(PRIOR), evaluation(comparisons={"logistic_regression": {"log_loss": Estimate(1, 1, 1)}}))
    assert finding.verdict is Verdict.NO_DATA


@given(st.sampled_from(NAMES), st.sampled_from([None, math.nan, math.inf, -math.inf]))
def test_a_measurement_that_is_missing_never_passes(name: str, value: float | None):
    gate = {"metric": name, "min": 0.5} if name != "log_loss" else {"metric": name, "max": 0.5}
    broken = Estimate(value, value, value)
    spec = model(gate, {"metric": name, "against": "prior", "min_difference": -0.5})
    findings = judge_gates(spec, evaluation(metrics={name: broken}, comparisons={"prior": {name: broken}}))
    assert [finding.verdict for finding in findings] == [Verdict.NO_DATA, Verdict.NO_DATA]
    assert decide(spec, findings, [], NOW).state is State.REJECTED


# The decision


def override(gate: str, *, until: timedelta = timedelta(days=1), granted: timedelta = timedelta(0)) -> OverrideRecord:
    return OverrideRecord(1, "m", gate, "Ann", "known and watched", NOW + granted, NOW + until)


def found(verdict: Verdict, measure: str = "roc_auc", subject: str = "all rows") -> Finding:
    return Finding(measure, subject, 0.5, 0.7, Direction.AT_LEAST, "w", verdict, f"{measure} on {subject}: why")


def test_all_gates_passed_approves():
    decision = decide(model(BOUND), [found(Verdict.PASS)], [], NOW)
    assert decision == Decision(State.APPROVED, ("1 findings, none speaks against it",))
    assert decision.approved


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.NO_DATA])
def test_a_failed_gate_and_one_without_data_reject_with_their_reason(verdict: Verdict):
    decision = decide(model(BOUND, LOW), [found(verdict), found(Verdict.PASS, "brier")], [], NOW)
    assert decision == Decision(State.REJECTED, ("roc_auc on all rows: why",))
    assert not decision.approved


@pytest.mark.parametrize("verdict", [Verdict.WARN, Verdict.NO_DATA, Verdict.PASS])
def test_a_gate_that_only_warns_does_not_reject(verdict: Verdict):
    warning = {**BOUND, "severity": "warning"}
    decision = decide(model(warning, LOW), [found(verdict), found(Verdict.PASS, "brier")], [], NOW)
    assert decision.approved


def test_a_gate_that_was_not_judged_rejects():
    decision = decide(model(BOUND, LOW), [found(Verdict.PASS)], [], NOW)
    assert decision == Decision(State.REJECTED, ("brier on all rows: was not judged",))


def test_a_warning_gate_that_was_not_judged_does_not_reject():
    decision = decide(model(BOUND, {**LOW, "severity": "warning"}), [found(Verdict.PASS)], [], NOW)
    assert decision.approved


def test_an_attribute_that_was_not_judged_rejects():
    name = FAIR["metric"]
    decision = decide(model(FAIR), [found(Verdict.PASS, name, "gender")], [], NOW)
    assert decision == Decision(State.REJECTED, (f"{name} on region: was not judged",))


@pytest.mark.parametrize("gate", [BOUND, {**BOUND, "severity": "warning"}])
def test_no_findings_at_all_reject_whoever_overrides(gate):
    decision = decide(model(gate), [], [override("roc_auc")], NOW)
    assert decision.state is State.REJECTED
    assert decision.reasons == ("no gate was judged",)


def test_a_finding_of_an_unknown_gate_counts_as_an_error():
    findings = [found(Verdict.PASS), found(Verdict.NO_DATA, "other")]
    assert decide(model(BOUND), findings, [], NOW).reasons == ("other on all rows: why",)


def test_an_override_lets_its_gate_pass_and_keeps_the_finding():
    findings = [found(Verdict.FAIL)]
    decision = decide(model(BOUND), findings, [override("roc_auc")], NOW)
    assert decision.state is State.APPROVED
    assert decision.overridden == (
        "roc_auc on all rows: why; let pass by Ann until 2024-05-02 00:00 UTC: known and watched",
    )
    assert findings == [found(Verdict.FAIL)]


def test_an_override_of_one_gate_lets_no_other_pass():
    findings = [found(Verdict.FAIL), found(Verdict.FAIL, "brier")]
    decision = decide(model(BOUND, LOW), findings, [override("roc_auc")], NOW)
    assert decision.state is State.REJECTED
    assert decision.reasons == ("brier on all rows: why",)
    assert len(decision.overridden) == 1


@pytest.mark.parametrize(
    ("granted", "until", "approved"),
    [(0, 1, True), (-5, 1, True), (-5, 0, False), (-5, -1, False), (1, 5, False)],
)
def test_an_override_holds_from_its_grant_up_to_its_end(granted: int, until: int, approved: bool):
    record = override("roc_auc", granted=timedelta(hours=granted), until=timedelta(hours=until))
    assert decide(model(BOUND), [found(Verdict.FAIL)], [record], NOW).approved is approved


def test_an_expired_override_does_not_hide_one_in_force():
    records = [override("roc_auc"), override("roc_auc", granted=timedelta(days=-9), until=timedelta(days=-8))]
    for order in (records, records[::-1]):
        assert decide(model(BOUND), [found(Verdict.FAIL)], order, NOW).approved


def test_a_gate_is_overridden_by_its_whole_name_only():
    findings = [found(Verdict.FAIL, "roc_auc against champion")]
    assert not decide(model(CHAMPION), findings, [override("roc_auc")], NOW).approved
    assert decide(model(CHAMPION), findings, [override("roc_auc against champion")], NOW).approved


names = st.sampled_from(["roc_auc", "brier", "log_loss against prior"])


@given(
    st.lists(st.sampled_from(list(Verdict)), min_size=3, max_size=3),
    st.lists(names, max_size=3),
    names,
)
def test_adding_an_override_never_makes_another_gate_pass(verdicts, held, added: str):
    spec = model(BOUND, LOW, PRIOR)
    findings = [found(v, gate.name) for v, gate in zip(verdicts, spec.evaluation.gates, strict=True)]
    records = [override(gate) for gate in held]
    before = decide(spec, findings, records, NOW)
    after = decide(spec, findings, [*records, override(added)], NOW)
    gone = set(before.reasons) - set(after.reasons) if not after.approved else set(before.reasons)
    assert all(before.approved or reason.startswith(f"{added} on") for reason in gone)
    if before.approved:
        assert after == before or set(before.overridden) <= set(after.overridden)


@given(st.lists(st.sampled_from(list(Verdict)), min_size=3, max_size=3))
def test_without_overrides_only_findings_that_all_pass_or_warn_approve(verdicts):
    spec = model(BOUND, LOW, PRIOR)
    findings = [found(v, gate.name) for v, gate in zip(verdicts, spec.evaluation.gates, strict=True)]
    assert decide(spec, findings, [], NOW).approved == (max(verdicts) <= Verdict.WARN)


def test_a_decision_survives_json():
    decision = decide(model(BOUND, LOW), [found(Verdict.FAIL), found(Verdict.FAIL, "brier")], [override("brier")], NOW)
    values = decision.to_dict()
    assert values["state"] == "rejected"
    assert type(values["state"]) is str
    assert Decision.from_dict({**values, "reasons": list(values["reasons"])}) == decision
