"""Real rows: a world that changes is told of, and one that hardly does is left in peace; its bias is not."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.sample_database import ensure_sample_database
from benchmarks.real_years import draw, employment, flights
from lifecycle.findings import Verdict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    data = Path(__file__).resolve().parents[2] / "data"
    return f"duckdb:///{ensure_sample_database(tmp_path_factory.mktemp('sample') / 'sample.duckdb', data)}"


@pytest.mark.requirement("R5.3", "R5.4")
def test_summer_and_september_are_drift_and_cost_a_frozen_model_what_the_estimate_does_not_see(url, tmp_path):
    story = flights(url, last=datetime(2013, 10, 1, tzinfo=UTC))
    july, _, september = story.looks
    assert {"temperature", "dew_point"} <= set(july.drifted)
    assert {"temperature", "pressure", "score"} <= set(september.drifted)
    for look in story.looks:
        measures = {finding.measure for _, finding in look.told}
        assert "roc_auc_degradation" in measures
        assert look.measured < story.reference_auc - 0.02
        # The estimate takes the world to be as it was, and is told off once labels contradict it.
        assert look.estimated.value > look.measured
        assert "estimate_coverage" in measures
    draw(story, tmp_path / "flights.png")
    assert (tmp_path / "flights.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.requirement("R5.3", "R5.6")
def test_a_survey_of_three_years_has_no_drift_and_its_real_bias_is_told_each_time(url):
    story = employment(url, every=4)
    assert len(story.looks) == 9
    for look in story.looks:
        assert look.drifted == ()
        failed = {
            (finding.measure, finding.subject)
            for finding in look.report.areas["bias"]
            if finding.verdict is Verdict.FAIL
        }
        assert ("demographic_parity_difference", "region") in failed
    gender = [
        finding.interval
        for look in story.looks
        for finding in look.report.areas["bias"]
        if (finding.measure, finding.subject) == ("predictive_parity_difference", "gender")
    ]
    assert all(low > 0.02 for low, _ in gender)
