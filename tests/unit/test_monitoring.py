"""What monitoring says: of a quiet week nothing, of each fault its own finding, of bad input that it is bad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from lifecycle.alerting import AlertingPolicy
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.monitoring import NAMES, Metric, Report, Seen, look, look_at_gateway, loss_p_value, settled
from lifecycle.observed import Arrivals, Observed, Window
from lifecycle.reference import Reference
from lifecycle.spec import Duration, ModelSpec
from tests.cli.conftest import MODEL
from tests.people import holdout, people

WEEK = Duration("7d")
END = datetime(2026, 3, 9, tzinfo=UTC)
SPEC = ModelSpec.model_validate(
    yaml.safe_load(MODEL)
    | {
        "features": [
            {"name": "activity", "type": "numeric", "min": -10, "max": 10},
            {"name": "visits", "type": "numeric", "min": 0, "max": 100},
            {"name": "plan", "type": "categorical", "values": ["basic", "plus", "pro"]},
            {"name": "gender", "type": "categorical", "values": ["f", "m"]},
        ]
    }
)
POLICY = AlertingPolicy.model_validate(
    yaml.safe_load((Path(__file__).resolve().parents[2] / "configs" / "policies" / "alerting.yaml").read_text())
)


def reference(version: str = "1", spec: ModelSpec = SPEC, **changes: Any) -> Reference:
    return Reference(spec, version, holdout(spec).assign(**changes), 0.5, timedelta(days=7))


REFERENCE = reference()


def traffic(frame: pd.DataFrame, window: Window, **columns: Any) -> pd.DataFrame:
    """Rows as the record gives them, evenly over a window."""
    rows = len(frame)
    at = window.start.timestamp() + np.arange(rows) * window.length.total_seconds() / max(rows, 1)
    told: dict[str, Any] = {
        "sequence": np.arange(rows), "request_id": [f"r{place}" for place in range(rows)], "at": (at * 1e9).astype(np.int64),
        "version": "1", "role": "live", "client": "app", "latency_ms": 4.0, "error": "",
        "decision": (frame["score"] >= 0.5).astype(float), "label": frame["churned"].astype(float),
    }  # fmt: skip
    features = frame.drop(columns=["churned"])
    return features.assign(**told).assign(**columns)


def seen(
    frame: pd.DataFrame, *, references: Mapping[str, Reference] | None = None, past: int = 1_500, spec: ModelSpec = SPEC,
    main: str | None = "1", **more: Any,
) -> Seen:  # fmt: skip
    """One look at a week of traffic, after weeks of `past` rows each."""
    window = Window.before(END, WEEK)
    arrivals = Arrivals([*window.earlier(4, WEEK), window])
    for number, earlier in enumerate(arrivals.windows[:-1]):
        arrivals.add(traffic(people(past, number), earlier))
    arrivals.add(frame)
    arrivals.settle()
    known = {"1": REFERENCE} if references is None else dict(references)
    observed = Observed(spec, window, known.get(main or ""), len(frame))
    observed.add(frame)
    return Seen(
        spec=spec, as_of=END, arrivals=arrivals, current=observed, matured=observed, main=main, references=known,
        no_reference={} if known else {"1": "version 1 has no reference"}, **more,
    )  # fmt: skip


def week(seed: int = 9, rows: int = 1_500, **columns: Any) -> pd.DataFrame:
    return traffic(people(rows, seed), Window.before(END, WEEK), **columns)


def verdicts(report: Report, *verdict: Verdict) -> set[tuple[str, str]]:
    return {(one.measure, one.subject) for one in report.findings if one.verdict in verdict}


def bad(report: Report) -> set[tuple[str, str]]:
    return verdicts(report, Verdict.WARN, Verdict.FAIL)


def found(report: Report, measure: str, subject: str = "all rows") -> Finding:
    (one,) = [one for one in report.findings if (one.measure, one.subject) == (measure, subject)]
    return one


def rules(finding: Finding) -> set[str]:
    """Rules of the shipped policy under which a finding is an alert now."""
    return {rule.name for rule in POLICY.rules_of(finding) if rule.priority_of(finding) is not None}


@pytest.mark.requirement("R5.1", "R5.2", "R5.3", "R5.5", "R5.6", "R5.7")
def test_a_quiet_week_has_every_area_and_no_alert():
    report = look(seen(week()))
    assert set(report.areas) == {"service", "quality", "drift", "model", "bias", "security"}
    assert verdicts(report, Verdict.WARN, Verdict.FAIL, Verdict.NO_DATA) == set()
    assert [one for one in report.findings if rules(one)] == []
    assert {"latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_per_s", "error_rate"} <= {
        one.measure for one in report.areas["service"]
    }
    for measure in ("accuracy", "precision", "recall", "roc_auc", "f1", "expected_calibration_error", "business_value_per_1000"):  # fmt: skip
        one = found(report, measure)
        assert one.interval is not None
        assert one.value is not None
        assert one.interval[0] <= one.value <= one.interval[1]


def test_quiet_weeks_stay_quiet():
    alerted = {
        (seed, one.measure, one.subject, one.value, one.reason)
        for seed in range(100, 112)
        for one in look(seen(week(seed))).findings
        if rules(one)
    }
    assert alerted == set()


def spread(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(at=frame["at"].to_numpy()[::-1])


BREAKS: dict[str, tuple[Any, tuple[str, str], str]] = {
    "a feature moved": (lambda: week(activity=people(1_500, 9)["activity"] + 1), ("wasserstein_distance", "activity"), "data_drift"),
    "categories moved": (lambda: week(plan="pro"), ("kl_divergence", "plan"), "data_drift"),
    "the score moved": (lambda: week(score=0.9), ("wasserstein_distance", "score"), "data_drift"),
    "the label moved": (lambda: week(label=np.r_[np.ones(1_400), np.zeros(100)]), ("kl_divergence", "label"), "data_drift"),
    "values are missing": (lambda: week(visits=[math.nan, 3.0] * 750), ("missing_share", "visits"), "data_quality"),
    "more values are missing than were": (lambda: week(visits=[math.nan, 3.0] * 750), ("missing_share_drift", "visits"), "data_drift"),
    "values are out of range": (lambda: week(visits=[-1.0, *[3.0] * 1_499]), ("out_of_range", "visits"), "data_quality"),
    "outliers": (lambda: week(visits=[9_000.0] * 100 + [3.0] * 1_400), ("outlier_share", "visits"), "data_quality"),
    "a column is gone": (lambda: week().drop(columns="visits"), ("schema", "visits"), "data_quality"),
    "a number is text": (lambda: week(visits=["many", *[3.0] * 1_499]), ("quality_type_mismatch", "visits"), "data_quality"),
    "rows come twice": (lambda: week(request_id=[f"r{n // 2}" for n in range(1_500)]), ("duplicates", "all rows"), "data_quality"),
    "a tenth of the traffic": (lambda: week(rows=150), ("volume", "all rows"), "data_quality"),
    "the ranking is lost": (lambda: week(label=np.tile([0.0, 1.0], 750)), ("roc_auc_degradation", "all rows"), "performance_degraded"),
    "decisions go wrong": (lambda: week(label=1 - people(1_500, 9)["churned"]), ("accuracy_degradation", "all rows"), "performance_degraded"),
    "one group is decided otherwise": (lambda: week(decision=lambda rows: (rows["gender"] == "f") * 1.0), ("demographic_parity_difference_change", "gender"), "bias_up"),
    "inputs like none before": (lambda: week(activity=np.r_[np.full(60, 9.5), people(1_440, 9)["activity"]], visits=np.r_[np.full(60, 99.0), people(1_440, 9)["visits"]]), ("adversarial_inputs", "all rows"), "security_breach"),
    "half the requests fail": (lambda: week(score=[math.nan, 0.4] * 750, decision=math.nan), ("error_rate", "all rows"), "warning_signs"),
    "every request fails": (lambda: week(score=math.nan, decision=math.nan), ("availability", "all rows"), "model_down"),
    "the clock goes back": (lambda: spread(week()), ("quality_clock", "gateway's clock"), "data_quality"),
    "a silent half": (lambda: week(at=week()["at"] // 2 + int(END.timestamp() * 1e9) // 2), ("quality_longest_gap", "hours without a prediction"), "data_quality"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.requirement("R5.3", "R5.4", "R5.5", "R5.6", "R6.1", "R6.2", "R6.3")
def test_each_fault_is_a_finding_that_its_rule_of_the_policy_takes(fault: str):
    make, key, rule = BREAKS[fault]
    report = look(seen(make()))
    assert key in bad(report), [one for one in report.findings if one.verdict is not Verdict.PASS]
    assert rule in rules(found(report, *key))


def test_every_name_that_monitoring_gives_is_one_that_a_rule_was_written_for():
    for name in NAMES.values():
        one = Finding(name, "x", 1.0, 0.1, Direction.AT_MOST, "w", Verdict.FAIL, "r")
        assert [rule.name for rule in POLICY.rules_of(one)] not in ([], ["warning_signs"]), name


def test_a_client_that_asks_four_times_as_much_in_straight_lines_is_told():
    line = pd.DataFrame({"activity": np.linspace(-9, 9, 6_000), "visits": 1.0, "plan": "pro", "gender": "f", "score": 0.5, "churned": 0})  # fmt: skip
    window = Window.before(END, WEEK)
    both = pd.concat([week(), traffic(line, window, client="copier")], ignore_index=True)
    report = look(seen(both))
    assert {("unusual_clients", "copier"), ("model_extraction", "copier")} <= bad(report)
    assert rules(found(report, "model_extraction", "copier")) == {"security_breach"}
    assert found(report, "unusual_clients", "app").verdict is Verdict.PASS


def of_gateway(
    measure: str, subject: str = "gateway", metrics: Sequence[Metric] = (), rows: int = 1_500, **refused: dict[str, int]
) -> Finding:
    areas = look_at_gateway(metrics, refused.get("refused", {}), rows, 0.8, window="w")
    (one,) = [one for found in areas.values() for one in found if (one.measure, one.subject) == (measure, subject)]
    return one


def test_refused_requests_are_told_with_their_address():
    one = of_gateway("unauthorized_access", "10.0.0.9", refused={"10.0.0.9": 900})
    assert (one.verdict, rules(one)) == (Verdict.FAIL, {"security_breach"})
    assert "900 refused" in one.reason
    few = of_gateway("unauthorized_access", "10.0.0.9", refused={"10.0.0.9": 2})
    assert few.verdict is Verdict.PASS
    assert of_gateway("unauthorized_access", "all addresses", rows=0).verdict is Verdict.PASS


# What bad input gets


def nothing() -> pd.DataFrame:
    return week().head(0)


def test_no_predictions_is_no_data_in_each_area_and_a_fall_of_volume():
    report = look(seen(nothing()))
    for area in ("service", "quality", "drift", "model", "security"):
        assert Verdict.NO_DATA in {one.verdict for one in report.areas[area]}, area
    assert found(report, "volume").verdict is Verdict.WARN
    assert "no predictions in the window" in found(report, "drift").reason
    assert {one.measure for one in report.findings if one.verdict is Verdict.FAIL} == {"freshness"}


def test_without_labels_performance_is_estimated_and_said_to_be():
    report = look(seen(week(label=math.nan)))
    assert found(report, "labelled_share").value == 0
    assert found(report, "labelled_share").verdict is Verdict.WARN
    assert found(report, "roc_auc_degradation").verdict is Verdict.NO_DATA
    estimated = found(report, "estimated_roc_auc_loss")
    assert estimated.verdict is Verdict.PASS
    assert "estimated without labels" in estimated.reason


def test_an_estimate_that_the_labels_contradicted_is_marked_untrusted():
    # Labels came for the first rows only, and they say that the world has changed.
    labels = np.r_[np.tile([0.0, 1.0], 300), np.full(900, math.nan)]
    report = look(seen(week(label=labels)))
    assert ("estimate_coverage", "roc_auc") in verdicts(report, Verdict.FAIL)
    estimated = found(report, "estimated_roc_auc_loss")
    assert estimated.verdict is Verdict.NO_DATA
    assert "not to be trusted" in estimated.reason


def test_labels_of_one_class_are_no_data_for_the_ranking():
    report = look(seen(week(label=0.0)))
    assert found(report, "roc_auc").verdict is Verdict.NO_DATA
    assert "0 of them positive" in found(report, "roc_auc").reason
    assert found(report, "roc_auc_degradation").verdict is Verdict.NO_DATA
    assert found(report, "accuracy").value is not None


def test_a_few_labels_say_nothing_of_degradation():
    report = look(seen(week(label=np.r_[np.zeros(50), np.ones(50), np.full(1_400, math.nan)])))
    assert found(report, "roc_auc_degradation").verdict is Verdict.NO_DATA
    assert "100 rows, 200 needed to judge" in found(report, "roc_auc_degradation").reason


def test_a_new_version_in_the_middle_is_held_against_its_own_reference():
    # Version 2 scores everybody higher, as it did on its own hold-out.
    higher = 0.9
    versions = np.where(np.arange(1_500) < 900, "1", "2")
    frame = week(version=versions)
    frame["score"] = np.where(versions == "2", higher + frame["score"] / 10, frame["score"])
    own = reference("2", prodecks_score=lambda rows: higher + rows["prodecks_score"] / 10)
    report = look(seen(frame, references={"1": REFERENCE, "2": own}))
    assert found(report, "wasserstein_distance", "score of version 2").verdict is Verdict.PASS
    assert found(report, "roc_auc", "version 2").count == 600
    against_its_own = bad(report)
    assert not [key for key in against_its_own if "drift" in key[0] or "wasserstein" in key[0]], against_its_own
    against_the_other = look(seen(frame, references={"1": REFERENCE, "2": reference("2")}))
    assert found(against_the_other, "wasserstein_distance", "score of version 2").verdict is Verdict.WARN


def test_a_version_with_few_rows_is_not_judged():
    frame = week(version=np.where(np.arange(1_500) < 1_450, "1", "2"))
    report = look(seen(frame))
    (told,) = [one for one in report.findings if "version 2" in one.subject]
    assert (told.count, told.reason) == (50, "50 rows: fewer than the 100 that are judged")


def test_without_a_reference_service_quality_and_security_are_still_judged():
    frame = week(visits=[-1.0, *[3.0] * 1_499])
    report = look(seen(frame, references={}))
    assert "version 1 has no reference" in found(report, "drift").reason
    assert found(report, "performance").verdict is Verdict.NO_DATA
    assert found(report, "adversarial_inputs").verdict is Verdict.NO_DATA
    assert ("out_of_range", "visits") in bad(report)
    assert found(report, "error_rate").verdict is Verdict.PASS
    assert ("demographic_parity_difference", "gender") in {(one.measure, one.subject) for one in report.areas["bias"]}


def test_a_feature_that_the_reference_does_not_know_is_told_and_the_others_are_judged():
    older = reference().rows.drop(columns="visits")
    report = look(seen(week(), references={"1": Reference(SPEC, "1", older, 0.5, timedelta(days=7))}))
    assert "does not know it" in found(report, "drift", "visits").reason
    assert found(report, "wasserstein_distance", "activity").verdict is Verdict.PASS
    assert found(report, "missing_share", "visits").verdict is Verdict.PASS


def test_a_groups_column_that_is_no_feature_is_no_data():
    features = [one for one in SPEC.features if one.name != "gender"]
    spec = SPEC.model_copy(update={"features": features})
    report = look(seen(week().drop(columns="gender"), spec=spec, references={"1": reference(spec=spec)}))
    assert "is no feature" in found(report, "demographic_parity_difference", "gender").reason


def test_a_clock_that_is_ahead_fails_freshness():
    ahead = seen(week())
    ahead.arrivals.newest = int((END + timedelta(hours=3)).timestamp() * 1e9)
    assert found(look(ahead), "freshness").verdict is Verdict.FAIL


def test_a_damaged_part_is_a_finding_and_the_rest_is_judged():
    report = look(seen(week(), damaged=["a.parquet is damaged"]))
    one = found(report, "quality_record", "archive and log")
    assert (one.verdict, one.reason, rules(one)) == (Verdict.FAIL, "a.parquet is damaged", {"data_quality"})
    assert found(report, "wasserstein_distance", "activity").verdict is Verdict.PASS


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_metric_that_is_missing_or_no_number_is_no_data(value: float | None):
    one = of_gateway("cpu_share", metrics=[Metric("cpu_share", value, "Prometheus", "it does not answer")])
    assert (one.verdict, rules(one)) == (Verdict.NO_DATA, {"no_data"})


def test_a_busy_processor_and_a_gateway_that_is_down_are_told():
    metrics = [Metric("cpu_share", 0.93, "Prometheus"), Metric("availability", 0.0, "Prometheus")]
    assert rules(of_gateway("cpu_share", metrics=metrics)) == {"resource_use"}
    assert rules(of_gateway("availability", metrics=metrics)) == {"model_down"}


def test_latency_is_held_against_earlier_windows():
    slow = look(seen(week(latency_ms=30.0), past_latency_ms=[4.0, 5.0]))
    assert found(slow, "latency_p95_ms").verdict is Verdict.WARN
    assert found(look(seen(week(), past_latency_ms=[4.0, 5.0])), "latency_p95_ms").verdict is Verdict.PASS


def test_an_area_that_breaks_is_a_finding_and_leaves_the_others_alone():
    broken = seen(week())
    broken.arrivals.by_client["app"] = None  # type: ignore[assignment]
    report = look(broken)
    assert "security could not be judged: TypeError" in found(report, "security_monitoring").reason
    assert found(report, "roc_auc").verdict is Verdict.PASS


def test_a_shadow_is_not_traffic():
    shadow = week(role="shadow", request_id=[f"s{n}" for n in range(1_500)], score=0.9)
    report = look(seen(pd.concat([week(), shadow], ignore_index=True)))
    assert found(report, "info_rows").count == 1_500
    assert bad(report) == set()


@pytest.mark.parametrize(
    ("end", "hours"),
    [(datetime(2026, 3, 30, tzinfo=UTC), 168), (datetime.fromisoformat("2026-10-26T00:00:00+02:00"), 168)],
)
def test_a_window_over_a_change_of_summer_time_has_all_its_hours(end: datetime, hours: int):
    window = Window.before(end, WEEK)
    assert window.length == timedelta(hours=hours)
    assert window.start.tzinfo is UTC
    earlier = window.earlier(2, WEEK)
    assert [one.end for one in earlier] == [earlier[1].start, window.start]


def test_parts_say_what_the_whole_says():
    whole, window = week(), Window.before(END, WEEK)
    observed = Observed(SPEC, window, REFERENCE, len(whole))
    for first in range(0, len(whole), 400):
        observed.add(whole.iloc[first : first + 400])
    at_once = seen(whole)
    in_parts = look(replace(at_once, current=observed, matured=observed))
    for one, other in zip(in_parts.findings, look(at_once).findings, strict=True):
        assert (one.measure, one.subject, one.verdict, one.count) == (other.measure, other.subject, other.verdict, other.count)  # fmt: skip
        assert one.value == pytest.approx(other.value, rel=1e-6, abs=1e-9, nan_ok=True)


def test_a_window_beyond_what_is_kept_whole_is_a_sketch():
    observed = Observed(SPEC, Window.before(END, WEEK), REFERENCE, 50_000_000)
    observed.add(week())
    assert observed.state is not None
    assert (
        look(replace(seen(week()), current=observed, matured=observed)).areas["drift"][0].verdict is not Verdict.NO_DATA
    )


def test_what_was_wrong_and_is_not_there_any_more_is_over():
    gone = Finding("model_extraction", "copier", 0.9, 0.4, Direction.AT_MOST, "w", Verdict.FAIL, "r")
    still = Finding("volume", "all rows", 2.0, 1.0, Direction.AT_MOST, "w", Verdict.WARN, "r")
    unknown = Finding("roc_auc", "all rows", None, None, Direction.AT_MOST, "w", Verdict.NO_DATA, "r")
    (over,) = settled([gone, still, unknown], [replace(still, verdict=Verdict.PASS)], "now")
    assert (over.measure, over.subject, over.verdict) == ("model_extraction", "copier", Verdict.PASS)


def test_a_loss_that_the_references_own_windows_have_is_no_degradation():
    from lifecycle.evaluation import Estimate

    before, now = Estimate(0.7, 0.69, 0.71), Estimate(0.63, 0.62, 0.64)
    assert loss_p_value(before, now, [0.0] * 6, [500] * 6, 3_000, 0.1) < 1e-6
    assert loss_p_value(before, now, [0.1, -0.1, 0.08, -0.12, 0.1, -0.06], [500] * 6, 3_000, 0.1) > 0.05
    assert math.isnan(loss_p_value(Estimate(0.7), now, [], [], 3_000, 0.1))


@pytest.mark.parametrize("rows", [holdout(SPEC).head(0), holdout(SPEC).drop(columns="prodecks_score")])
def test_a_file_that_is_no_reference_is_refused(rows: pd.DataFrame):
    from lifecycle.errors import DataError

    with pytest.raises(DataError, match="the file that was registered with it"):
        Reference(SPEC, "1", rows, 0.5, timedelta(days=7))


def test_contributions_rank_what_drifts_by_what_the_score_goes_with():
    report = look(seen(week(activity=people(1_500, 9)["activity"] + 1, visits=[90.0] * 1_500)))
    shares = dict(report.contributions)
    assert shares["activity"] > 0.8
    assert next(one.subject for one in report.areas["drift"]) == "activity"


@pytest.mark.requirement("R5.2", "R5.4")
def test_labels_that_need_time_are_looked_for_in_the_window_that_has_had_it():
    labelled = Window.before(END - timedelta(days=14), WEEK)
    matured = Observed(SPEC, labelled, None, 1_500, features=False)
    matured.add(traffic(people(1_500, 11), labelled))
    report = look(replace(seen(week(label=math.nan)), matured=matured))
    assert found(report, "labelled_share").value == 1
    assert found(report, "roc_auc").window == labelled.words
    assert found(report, "roc_auc_degradation").verdict is Verdict.PASS
    assert found(report, "estimated_roc_auc_loss").window == Window.before(END, WEEK).words
    assert found(report, "equal_opportunity_difference", "gender").verdict is Verdict.PASS
    assert bad(report) == set()
