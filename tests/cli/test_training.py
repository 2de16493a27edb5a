"""One real training on a few hundred rows: what is registered, what is on record, and what a second run reuses."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.requirement("R3.8", "RO.4")


def test_an_approved_training_ends_with_gates_verdict_version_and_where_to_look(trained):
    assert trained.first.code == 0, trained.first
    for told in ("gates of churn", "roc_auc", "✓ pass", "approved: churn version 1", "model card", "runs show"):
        assert told in trained.first.out
    assert trained.first.err == ""


def test_the_same_training_again_reuses_what_did_not_change_and_registers_nothing_new(trained):
    assert trained.second.code == 0, trained.second
    told = trained.second.json
    assert (told["state"], told["version"], told["created"]) == ("approved", "1", False)
    reused = {name for name, phase in told["phases"].items() if phase["reused"]}
    assert reused == {
        "validate_data",
        "split_data",
        "check_drift",
        "tune_model",
        "fit_model",
        "make_twin",
        "evaluate_model",
    }
    assert 0.7 < told["metrics"]["roc_auc"] < 1.0


def test_nothing_is_split_or_trained_before_the_data_was_found_sound(trained):
    from zenml.client import Client

    run = Client().list_pipeline_runs(sort_by="asc:created", hydrate=True).items[0]
    assert "require_quality" in run.steps["split_data"].spec.upstream_steps
    for later in ("check_drift", "tune_model", "fit_model", "make_twin", "evaluate_model"):
        assert "split_data" in run.steps[later].spec.upstream_steps


def test_a_version_is_kept_with_its_hold_out_for_monitoring(trained, tmp_path):
    from adapters.reference_file import decode
    from adapters.registry import REFERENCE, Registry
    from lifecycle.reference import AT, LABEL, SCORE

    registry = Registry(f"sqlite:///{trained.place.var / 'mlflow' / 'mlflow.db'}")
    kept = registry.attached("churn", "1", REFERENCE, tmp_path)
    assert kept is not None
    rows = decode(kept)
    assert list(rows.columns) == ["activity", "visits", "plan", "gender", AT, LABEL, SCORE]  # and nobody's key
    assert len(rows) == 120
    assert rows[SCORE].between(0, 1).all()
    assert set(rows[LABEL]) == {0, 1}
    assert rows[AT].is_monotonic_increasing
