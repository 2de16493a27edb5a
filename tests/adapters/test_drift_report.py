"""Evidently's distances are the field's: they agree with SciPy, and a hole in the data is no distance."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance

from adapters.drift_report import MOST_ROWS, compare
from tests.minimal_spec import minimal_spec

pytestmark = pytest.mark.requirement("R2.4", "R5.3", "RO.1", "RO.3")

SPEC = minimal_spec(
    features=[
        {"name": "x", "type": "numeric"},
        {"name": "steady", "type": "numeric"},
        {"name": "kind", "type": "categorical"},
    ],
)


def rows(shift=0.0, share=0.5, count=2_000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.normal(shift, 2, count),
            "steady": np.full(count, 3.0),
            "kind": np.where(rng.random(count) < share, "a", "b").astype(object),
        }
    )


def test_what_moved_is_told_apart_from_what_did_not():
    old, new = rows(), rows(shift=1.0, seed=1)
    report = compare(old, new, SPEC, seed=0)
    assert report.distances["x"] == pytest.approx(wasserstein_distance(old.x, new.x) / old.x.std(ddof=0), rel=1e-3)
    assert report.distances["x"] > 0.3
    assert report.distances["steady"] == 0
    assert report.distances["kind"] < 0.01
    assert report.rows == {"x": 2_000, "steady": 2_000, "kind": 2_000}
    assert "<html" in report.page.lower()
    assert compare(rows(), rows(share=0.9, seed=1), SPEC, seed=0).distances["kind"] > 0.1


def test_a_feature_without_a_value_in_one_window_has_no_distance():
    new = rows()
    new["x"] = np.nan
    new["kind"] = None
    report = compare(rows(), new, SPEC, seed=0)
    assert set(report.distances) == {"steady"}
    assert report.rows == {"x": 0, "steady": 2_000, "kind": 0}
    assert compare(rows(), new.assign(steady=np.nan), SPEC, seed=0).distances == {}


def test_large_windows_are_sampled_the_same_way_for_the_same_seed():
    old, new = rows(count=MOST_ROWS + 5_000), rows(shift=0.2, count=MOST_ROWS + 5_000, seed=1)
    first = compare(old, new, SPEC, seed=3).distances
    assert first == compare(old, new, SPEC, seed=3).distances
    assert first["x"] != compare(old, new, SPEC, seed=4).distances["x"]


def test_nothing_is_written_to_the_users_home(tmp_path):
    program = (
        "from tests.adapters.test_drift_report import SPEC, rows\n"
        "from adapters.drift_report import compare\n"
        "compare(rows(), rows(), SPEC, 0)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(root), "MPLCONFIGDIR": str(tmp_path / "mpl")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, cwd=root)
    assert {path.name for path in tmp_path.iterdir()} <= {"mpl"}
