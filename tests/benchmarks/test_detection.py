"""What is planted is found in one window, in its own area and on its own column; quiet weeks tell nothing."""

from datetime import UTC, datetime

import pytest

from benchmarks.detection import is_found, run_model
from lifecycle.findings import Direction, Finding, Verdict
from lifecycle.members import Planted

ONSET = datetime(2026, 6, 1, tzinfo=UTC)


def alarm(area, measure, subject):
    finding = Finding(measure, subject, 1.0, 0.1, Direction.AT_MOST, "w", Verdict.WARN, "r")
    return [(area, "rule", finding)]


@pytest.mark.parametrize(
    ("kind", "subject", "alarms", "found"),
    [
        ("drift", "age_years", alarm("drift", "wasserstein_distance", "age_years"), True),
        ("drift", "age_years", alarm("drift", "wasserstein_distance", "storage_mb"), False),
        ("drift", "age_years", alarm("quality", "outlier_share", "age_years"), False),
        ("break", "age_years", alarm("quality", "missing_share", "age_years"), True),
        ("break", "age_years", alarm("drift", "wasserstein_distance", "age_years"), False),
        ("bias", "gender=female", alarm("bias", "equal_opportunity_difference_change", "gender × region"), True),
        ("bias", "gender=female", alarm("model", "equal_opportunity_difference", "gender"), False),
        ("bias", "gender=female", alarm("bias", "equal_opportunity_difference_change", "region"), False),
        ("concept drift", "tenure_months", alarm("model", "roc_auc_degradation", "all rows"), True),
        ("concept drift", "tenure_months", alarm("model", "estimate_coverage", "roc_auc"), False),
        ("drift", "age_years", [], False),
    ],
)
def test_only_an_alarm_of_the_right_area_and_column_counts(kind, subject, alarms, found):
    assert is_found(Planted(kind, subject, ONSET, None, 1.0), alarms) is found


@pytest.mark.slow
@pytest.mark.requirement("R5.3", "R5.4", "R5.5", "R5.6")
def test_one_of_each_kind_is_found_and_quiet_weeks_are_quiet():
    """Places in `planted_in`: numbers and categories that drift, a concept, a bias, and every kind of break."""
    weeks = run_model(0, 3, peer=False, only=[0, 3, 9, 10, 13, 15, 18, 23, 26, 29, 32, 34, 35])
    quiet = [week for week in weeks if week.planted is None]
    planted = [week for week in weeks if week.planted is not None]
    assert {week.planted.kind for week in planted} == {"drift", "concept drift", "bias", "break"}
    assert [week.planted for week in planted if not week.ours] == []
    assert [week.told for week in quiet if week.alerts] == []
