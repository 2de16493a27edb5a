"""A search is seeded, goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from adapters import tuning
from adapters.fitting import fit
from adapters.processes import this_process
from adapters.tuning import TrialProgress, tune
from lifecycle.errors import DataError, UnavailableError
from lifecycle.leases import Owner
from lifecycle.splitting import split
from lifecycle.training import TuningResult
from tests.adapters.small_training import rows, spec

pytestmark = pytest.mark.requirement("R2.2", "R3.6")

ROOT = Path(__file__).resolve().parents[2]


def search(folder: Path, trials: int = 5, **others: Any) -> TuningResult:
    asked, frame = spec(trials), rows()
    parts = split(frame, asked, 0)
    usual = {"storage": f"sqlite:///{folder}/tuning.db", "study_name": "s", "seed": 1}
    return tune(frame, parts.train, parts.folds, asked, **{**usual, **others})


def told(result: TuningResult) -> dict[str, Any]:
    """All that a search decides, without times."""
    frame, asked = rows(), spec()
    model = fit(frame, split(frame, asked, 0).train, asked, result, 1)
    return {
        "best": result.best.to_dict(),
        "epochs": result.epochs,
        "threshold": result.threshold,
        "folds": list(result.fold_aucs),
        "out_of_fold": np.nansum(result.out_of_fold),
        "trials": result.trials.query("state != 'fail'")[["state", "roc_auc", "learning_rate"]].to_dict("list"),
        "model": model.content,
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TuningResult:
    """A search that nothing interrupted."""
    return search(tmp_path_factory.mktemp("whole"))


def test_a_search_ends_with_all_that_the_model_needs(whole: TuningResult):
    assert len(whole.trials) == 5
    assert set(whole.trials["state"]) <= {"complete", "pruned"}
    best = whole.trials.loc[whole.trials["state"] == "complete", "roc_auc"].max()
    assert np.mean(whole.fold_aucs) == pytest.approx(best)
    assert best > 0.5
    assert 1 <= whole.epochs <= 3
    frame = rows()
    parts = split(frame, spec(), 0)
    validated = np.isin(parts.train, np.concatenate([validate for _, validate in parts.folds]))
    assert (whole.validated_rows == validated).all()
    assert {"history", "slices"} <= set(whole.plots)
    assert all("<html" in page for page in whole.plots.values())


def test_another_process_finds_the_same_model_to_the_last_bit(whole: TuningResult, tmp_path: Path):
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from tests.adapters.test_tuning import search, told\n"
        "print(json.dumps(told(search(Path(sys.argv[1])))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout) == told(whole)
    assert ended.stderr == ""


def test_another_seed_finds_another_model(whole: TuningResult, tmp_path: Path):
    assert told(search(tmp_path, trials=2, seed=2))["model"] != told(whole)["model"]


@pytest.mark.parametrize("after", [1, 7])
def test_a_search_that_was_interrupted_ends_as_if_it_had_not_been(whole: TuningResult, tmp_path: Path, after: int):
    seen = 0

    def interrupt(_: TrialProgress) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, on_progress=interrupt)
    resumed = told(search(tmp_path))
    assert resumed == told(whole)


def test_a_finished_search_is_not_repeated(whole: TuningResult, tmp_path: Path):
    heard: list[str] = []
    first = search(tmp_path)
    again = search(tmp_path, on_progress=lambda progress: heard.append(progress.text))
    assert told(again) == told(first) == told(whole)
    assert heard == ["validating the best trial"]


def test_the_trial_of_a_process_that_is_gone_is_given_up_and_a_living_ones_is_not(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/tuning.db"
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    here = this_process()
    for owner in (Owner(here.host, gone.pid, here.kernel, "1"), here, Owner("elsewhere", 1, "k", "1"), None):
        trial = study.ask()
        if owner is not None:
            trial.set_user_attr("process", str(owner))
    result = search(tmp_path, trials=2)
    assert [trial.state.name for trial in study.trials[:4]] == ["FAIL", "RUNNING", "RUNNING", "RUNNING"]
    assert len(result.trials) == 2


def test_progress_tells_how_far_and_the_best_so_far(tmp_path: Path):
    heard: list[TrialProgress] = []
    finished: list[int] = []
    search(tmp_path, trials=3, on_progress=heard.append, on_trial=lambda trial: finished.append(trial.number))
    assert finished == [0, 1, 2]
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)
    assert {progress.total for progress in heard} == {3}
    assert heard[0].best is None
    assert heard[-1].best is not None


def test_scores_that_are_no_numbers_end_a_trial_and_a_search_of_such_trials_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def diverged(network: Any, fold: Any, *_: Any) -> tuple[np.ndarray, int]:
        return np.full(len(fold.validate_rows), np.nan), 1

    monkeypatch.setattr(tuning, "fit_fold", diverged)
    with pytest.raises(DataError, match="none of 2 trials ended with a number"):
        search(tmp_path, trials=2)


def test_a_store_that_does_not_answer_is_told_as_such(tmp_path: Path):
    with pytest.raises(UnavailableError, match="the store of tuning studies does not answer"):
        search(tmp_path, storage=f"sqlite:///{tmp_path}/nowhere/tuning.db")


def test_sample_weights_change_the_model(whole: TuningResult, tmp_path: Path):
    weights = np.where(rows()["kind"] == "a", 5.0, 0.2)
    assert search(tmp_path, trials=2, weights=weights).fold_aucs != whole.fold_aucs
