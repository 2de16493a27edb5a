"""A gate that cannot fire, cannot pass, or judges what it cannot see is found out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lifecycle import proving
from lifecycle.findings import Direction, Severity, Verdict
from lifecycle.gates import Decision, State
from lifecycle.measures import FAIRNESS, PERFORMANCE
from lifecycle.proving import FIRST_VERSION, GateProof, prove
from lifecycle.spec import Gate, ModelSpec
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R7.3")

MODELS = Path(__file__).parents[2] / "configs" / "models"
CHAMPION = {"metric": "roc_auc", "against": "champion", "min_difference": -0.01}
FAIR = {"metric": "equal_opportunity_difference", "over": ["gender"], "max": 0.05}


def model(*gates: dict[str, Any], worth: dict[str, float] | None = None, **rules: Any) -> ModelSpec:
    return minimal_spec(
        sensitivity="sensitive",
        features=[{"name": "x", "type": "numeric"}, {"name": "c", "type": "categorical"}],
        sensitive=[{"name": "gender", "column": "g"}],
        evaluation={"gates": list(gates), "slices": ["c"], **rules},
        business={
            "currency": "EUR",
            "decision": "call",
            **(worth or {"true_positive": 12, "false_positive": -3}),
        },
    )


def forced(*gates: Gate) -> ModelSpec:
    """A model with gates that the schema refuses, one by one or together."""
    spec = model({"metric": "roc_auc", "min": 0.6})
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"gates": list(gates)})})


def gate(**values: Any) -> Gate:
    return Gate.model_construct(
        **{"min": None, "max": None, "over": None, "against": None, "min_difference": None, **values}
    )


def alone(spec: ModelSpec) -> GateProof:
    (proof,) = prove(spec)
    return proof


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_gate_of_every_shipped_model_is_proven(path: Path):
    spec = ModelSpec.model_validate(YAML(typ="safe").load(path))
    proofs = prove(spec)
    assert [proof for proof in proofs if not proof.proven] == []
    wanted = [
        (one.name, subject)
        for one in spec.evaluation.gates
        for subject in one.over or (["all rows", FIRST_VERSION] if one.against == "champion" else ["all rows"])
    ]
    assert [(proof.gate, proof.subject) for proof in proofs] == wanted


def test_a_reasonable_bound_on_any_measure_is_proven():
    gates = [
        {"metric": name, **({"min": 0.5} if measure.higher_is_better else {"max": 0.3})}
        for name, measure in PERFORMANCE.items()
    ]
    for proof in prove(model(*gates)):
        assert proof.proven, (proof.gate, proof.problems)
        assert (proof.findings["fires"].verdict, proof.findings["passes"].verdict) == (Verdict.FAIL, Verdict.PASS)
        assert proof.findings["lacks_data"].verdict is Verdict.NO_DATA


@pytest.mark.parametrize("against", ["prior", "logistic_regression", "champion"])
def test_a_reasonable_improvement_of_any_measure_is_proven(against: str):
    gates = [{"metric": name, "against": against, "min_difference": 0.0} for name in PERFORMANCE]
    proofs = prove(model(*gates, min_rows=50))
    assert len(proofs) == len(PERFORMANCE) * (2 if against == "champion" else 1)
    for proof in proofs:
        assert proof.proven, (proof.gate, proof.problems)


@pytest.mark.parametrize("bound", [0.0, 0.05, 0.99])
def test_a_fairness_gate_is_proven_up_to_the_ends_of_its_range(bound: float):
    for proof in prove(model(*({"metric": name, "over": ["gender"], "max": bound} for name in FAIRNESS))):
        assert proof.proven, (proof.gate, proof.problems)
        assert proof.subject == "gender"


def test_a_bound_at_the_end_of_the_range_is_proven():
    gates = [
        {"metric": "roc_auc", "min": 1.0},
        {"metric": "accuracy", "min": 1e-9},
        {"metric": "recall", "max": 0.0},
        {"metric": "f1", "max": 0.999},
    ]
    for proof in prove(model(*gates)):
        assert proof.proven, (proof.gate, proof.problems)


def test_limits_of_the_file_are_met_by_the_hold_outs():
    proof = alone(model(FAIR, min_rows=2_500, min_group_rows=1_300, min_group_class_rows=350))
    assert proof.proven, proof.problems
    assert alone(model({"metric": "roc_auc", "min": 0.6}, min_rows=1, min_group_rows=1, min_group_class_rows=1)).proven


@pytest.mark.parametrize("value", [-2_900, 11_900])
def test_a_bound_in_currency_is_proven_where_the_values_can_reach_it(value: float):
    proof = alone(model({"metric": "business_value_per_1000", "min": value}))
    assert proof.proven, proof.problems


def test_a_bound_in_currency_that_all_losses_meet_cannot_fire():
    proof = alone(model({"metric": "business_value_per_1000", "min": -3_001}))
    assert proof.problems == ("asks for ≥ -3001 and no hold-out makes it fire",)
    assert (proof.fires, proof.passes) == (None, "perfect scores, inverted baselines")
    assert set(proof.findings) == {"passes", "lacks_data"}


def test_a_bound_in_currency_that_no_gain_meets_cannot_be_passed():
    proof = alone(model({"metric": "business_value_per_1000", "min": 12_001}))
    assert proof.problems == ("asks for ≥ 12001 and no hold-out lets it pass",)
    assert (proof.fires, proof.passes) == ("perfect scores, inverted baselines", None)


@pytest.mark.parametrize(
    ("gain", "problems"),
    [
        (0.51, ("asks for ≥ 0.51 and no hold-out lets it pass",)),
        (0.49, ()),
        (-0.49, ()),
        (-0.5, ("asks for ≥ -0.5 and no hold-out makes it fire",)),
    ],
)
def test_what_no_candidate_can_gain_or_lose_on_the_prior_is_not_proven(gain: float, problems: tuple[str, ...]):
    proof = alone(model({"metric": "roc_auc", "against": "prior", "min_difference": gain}))
    assert proof.problems == problems


def test_a_gate_that_cannot_fire_is_caught_even_if_the_schema_let_it_in():
    impossible = [
        gate(metric="roc_auc", min=0.0, severity=Severity.ERROR),
        gate(metric="brier", max=1.0, severity=Severity.ERROR),
        gate(metric="f1", against="champion", min_difference=-1.0, severity=Severity.WARNING),
        gate(metric="demographic_parity_difference", over=["gender"], max=1.0, severity=Severity.ERROR),
        gate(metric="log_loss", max=40.0, severity=Severity.ERROR),
    ]
    for proof in prove(forced(*impossible)):
        assert not proof.proven, proof.gate
        assert proof.problems[0].endswith("no hold-out makes it fire")


def test_a_warning_gate_is_proven_to_warn_and_not_to_reject():
    proof = alone(model({"metric": "roc_auc", "min": 0.6, "severity": "warning"}))
    assert proof.proven
    assert proof.findings["fires"].verdict is Verdict.WARN


def test_the_first_version_is_proven_by_its_own_rule():
    later, first = prove(model(CHAMPION))
    assert (later.subject, first.subject) == ("all rows", FIRST_VERSION)
    assert "first version" not in later.findings["fires"].reason
    assert "(first version, no champion yet: compared with logistic_regression)" in first.findings["fires"].reason
    assert "(first version" in first.findings["lacks_data"].reason


def test_a_proof_survives_json_and_says_what_was_asked():
    proof = alone(model(FAIR))
    values = json.loads(json.dumps(proof.to_dict(), allow_nan=False))
    assert (values["gate"], values["subject"], values["proven"]) == ("equal_opportunity_difference", "gender", True)
    assert (values["direction"], values["threshold"], values["problems"]) == ("at_most", 0.05, [])
    assert values["fires"] == "perfect in one group, inverted in the other"
    assert values["passes"] == "perfect scores, inverted baselines"
    assert values["lacks_data"] == "too few rows"
    assert values["findings"]["fires"]["verdict"] == "FAIL"
    assert proof.direction is Direction.AT_MOST


def test_proving_is_the_same_every_time():
    assert prove(model(CHAMPION)) == prove(model(CHAMPION))


# Broken judges are caught


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.NO_DATA])
def test_a_judge_that_always_says_the_same_is_caught(monkeypatch, verdict: Verdict):
    real = proving.judge_gates
    monkeypatch.setattr(
        proving, "judge_gates", lambda *given: [replace(finding, verdict=verdict) for finding in real(*given)]
    )
    proofs = prove(model({"metric": "roc_auc", "min": 0.6}, CHAMPION, FAIR))
    assert not any(proof.proven for proof in proofs)


def test_a_judge_that_passes_what_has_no_data_is_caught(monkeypatch):
    real = proving.judge_gates

    def lenient(*given):
        return [
            replace(finding, verdict=Verdict.PASS) if finding.verdict is Verdict.NO_DATA else finding
            for finding in real(*given)
        ]

    monkeypatch.setattr(proving, "judge_gates", lenient)
    proof = alone(model({"metric": "roc_auc", "min": 0.6}))
    assert proof.problems == (
        "is pass on 'too few rows', where it can have no data",
        "is pass on 'one label only', where it can have no data",
        "is pass on 'a NaN among the scores', where it can have no data",
        "is never without data",
    )
    fair = alone(model(FAIR))
    assert "is pass on 'one group only is large enough', where it can have no data" in fair.problems
    later, _ = prove(model(CHAMPION))
    assert "is pass on 'baselines that could not be scored', where it can have no data" in later.problems


def test_a_judge_that_only_warns_at_an_error_gate_is_caught(monkeypatch):
    real = proving.judge_gates

    def mild(*given):
        return [
            replace(finding, verdict=Verdict.WARN) if finding.verdict is Verdict.FAIL else finding
            for finding in real(*given)
        ]

    monkeypatch.setattr(proving, "judge_gates", mild)
    proof = alone(model({"metric": "roc_auc", "min": 0.6}))
    assert "is warn on 'inverted scores, perfect baselines', its severity is error" in proof.problems
    assert "asks for ≥ 0.6 and no hold-out makes it fire" in proof.problems


def test_a_judge_that_skips_a_gate_is_caught(monkeypatch):
    monkeypatch.setattr(proving, "judge_gates", lambda *_: [])
    proof = alone(model({"metric": "roc_auc", "min": 0.6}))
    assert "has no finding on 'too few rows'" in proof.problems
    assert not proof.proven


def test_a_decision_that_ignores_a_failed_gate_is_caught(monkeypatch):
    monkeypatch.setattr(proving, "decide", lambda *_: Decision(State.APPROVED, ()))
    proof = alone(model({"metric": "roc_auc", "min": 0.6}))
    assert "is fail on 'inverted scores, perfect baselines', but the candidate is not rejected" in proof.problems
    assert "is no data on 'too few rows', but the candidate is not rejected" in proof.problems


def test_a_decision_that_rejects_everything_is_caught(monkeypatch):
    monkeypatch.setattr(proving, "decide", lambda *_: Decision(State.REJECTED, ()))
    proof = alone(model({"metric": "roc_auc", "min": 0.6}))
    assert "is pass on 'perfect scores, inverted baselines', but the candidate is not approved" in proof.problems
