"""Optuna: a seeded, resumable search with pruning across folds, and its plots (R2.2, R3.6)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapters.fitting import Fold, fit_fold, make_network
from adapters.processes import has_died, this_process
from lifecycle.calibration import fit_calibration
from lifecycle.encoding import Columns, fit_encoding, read_columns
from lifecycle.errors import DataError, UnavailableError
from lifecycle.leases import Owner
from lifecycle.metrics import roc_auc
from lifecycle.spec import ModelSpec, Training
from lifecycle.thresholds import best_threshold
from lifecycle.training import Hyperparameters, TuningResult

Rows = NDArray[np.intp]
STARTUP_TRIALS = 4
"""Trials drawn at random, and never pruned, before TPE and the pruner have something to go by."""
KEPT_PERCENT = 25.0
"""After each fold a trial goes on when it is among this share of the trials that came as far."""


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """How far a search is.

    Parameters
    ----------
    done, total
        Finished trials of all.
    best
        Best mean ROC AUC so far; None before the first.
    text
        What just happened.
    """

    done: int
    total: int
    best: float | None
    text: str


@dataclass(frozen=True, slots=True)
class _Validated:
    """A trial's folds, the newest first: it is the most like the hold-out, and the best reason to give a trial up."""

    logits: list[NDArray[np.float64]]
    aucs: list[float]
    epochs: list[int]

    @property
    def mean_auc(self) -> float:
        return float(np.mean(self.aucs))


def tune(
    frame: pd.DataFrame,
    train: Rows,
    folds: Sequence[tuple[Rows, Rows]],
    spec: ModelSpec,
    *,
    storage: str,
    study_name: str,
    seed: int,
    weights: NDArray[np.float64] | None = None,
    on_progress: Callable[[TrialProgress], None] = lambda _: None,
    on_trial: Callable[[Any], None] = lambda _: None,
) -> TuningResult:
    """Search the model file's space; an interrupted study goes on where it stopped and ends as it would have.

    Parameters
    ----------
    frame
        A snapshot's rows.
    train
        Positions of the training rows.
    folds
        Pairs (fit, validate) of positions inside `train`.
    spec
        The model file.
    storage
        Database of studies, ``sqlite:///file`` or ``postgresql://...``.
    study_name
        The same name is the same study.
    seed
        Every random choice follows from it.
    weights
        Shape (rows of frame,): sample weights; None for equal ones.
    on_progress, on_trial
        Called after each fold, and with Optuna's frozen trial after each trial.

    Raises
    ------
    DataError
        No trial ended with a number.
    UnavailableError
        The storage does not answer.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plan = spec.training
    columns = read_columns(frame, spec)
    labels = frame[spec.label.column].to_numpy(dtype=np.float32)
    prepared = [_prepare(columns, labels, weights, fit, validate, spec) for fit, validate in folds]
    pruner = optuna.pruners.PercentilePruner(KEPT_PERCENT, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=0)
    best_here: tuple[int, _Validated] | None = None
    with _answering(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TPE's multivariate mode calls itself experimental
        rdb = optuna.storages.RDBStorage(storage)
        study = optuna.create_study(
            study_name=study_name, storage=rdb, direction="maximize", load_if_exists=True, pruner=pruner
        )
        _fail_orphans(study, rdb)
        while True:
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            if len(finished) >= plan.trials:
                break
            # Seeded by how many trials there are: a resumed search draws what the uninterrupted one would have, and
            # a parallel one what nobody is at.
            begun = len(finished) + len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
            study.sampler = optuna.samplers.TPESampler(
                seed=_mixed(seed, begun), n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
            )
            trial = study.ask()
            trial.set_user_attr("process", str(this_process()))
            try:
                fitted = _run_trial(trial, study, prepared, plan, spec, seed, len(finished), on_progress)
            except BaseException:
                study.tell(trial, state=TrialState.FAIL)
                raise
            if fitted is not None and (best_here is None or fitted.mean_auc > best_here[1].mean_auc):
                best_here = trial.number, fitted
            on_trial(study.trials[trial.number])
        done = [one for one in study.get_trials(deepcopy=False) if one.state is TrialState.COMPLETE]
        if not done:
            raise DataError(f"{spec.name}: none of {plan.trials} trials ended with a number; accepted: at least one")
        best = max(done, key=lambda one: (one.value, -one.number))
        trials = _table(study)
        plots = _plots(study) if len(done) > 1 else {}
    hyperparameters = Hyperparameters(**best.params)
    if best_here is not None and best_here[0] == best.number:
        validated = best_here[1]
    else:  # an earlier or another process found it: the same fits again give the same scores
        on_progress(TrialProgress(plan.trials, plan.trials, best.value, "validating the best trial"))
        validated = _validate(hyperparameters, prepared, plan, seed)
    logits = np.full(len(frame), np.nan)
    for fold, found in zip(reversed(prepared), validated.logits, strict=True):
        logits[fold.validate_rows] = found
    out_of_fold = logits[train]
    known = ~np.isnan(out_of_fold)
    outcome = labels[train][known]
    calibration = fit_calibration(out_of_fold[known], outcome)
    return TuningResult(
        best=hyperparameters,
        epochs=max(1, int(np.median(validated.epochs))),
        trials=trials,
        out_of_fold=out_of_fold,
        calibration=calibration,
        threshold=best_threshold(outcome, calibration.apply(out_of_fold[known]), spec.business),
        fold_aucs=tuple(reversed(validated.aucs)),
        plots=plots,
        study=study_name,
    )


def _prepare(
    columns: Columns,
    labels: NDArray[np.float32],
    weights: NDArray[np.float64] | None,
    fit: Rows,
    validate: Rows,
    spec: ModelSpec,
) -> Fold:
    encoding = fit_encoding(columns, fit, spec)
    return Fold(
        encoding=encoding,
        fit=encoding.transform(columns, fit),
        labels=labels[fit],
        weights=np.ones(len(fit), np.float32) if weights is None else weights[fit].astype(np.float32),
        validate=encoding.transform(columns, validate),
        validate_labels=labels[validate],
        validate_rows=validate,
    )


def _run_trial(
    trial: Any,
    study: Any,
    folds: Sequence[Fold],
    plan: Training,
    spec: ModelSpec,
    seed: int,
    finished: int,
    on_progress: Callable[[TrialProgress], None],
) -> _Validated | None:
    from optuna.trial import TrialState

    chosen = _suggest(trial, spec)
    validated = _Validated([], [], [])
    for place, fold in enumerate(reversed(folds)):
        auc = _fit_and_validate(validated, chosen, fold, place, plan, seed)
        if not np.isfinite(auc):
            trial.set_user_attr("reason", "the network's scores are no numbers")
            study.tell(trial, state=TrialState.PRUNED)
            return None
        trial.report(validated.mean_auc, place)
        best = _best_so_far(study)
        text = f"trial {finished + 1} fold {place + 1}/{len(folds)}: {auc:.4f}" + (f", best {best:.4f}" if best else "")
        on_progress(TrialProgress(finished, plan.trials, best, text))
        if place + 1 < len(folds) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return None
    study.tell(trial, validated.mean_auc)
    return validated


def _validate(chosen: Hyperparameters, folds: Sequence[Fold], plan: Training, seed: int) -> _Validated:
    """Fit a trial's folds once more."""
    validated = _Validated([], [], [])
    for place, fold in enumerate(reversed(folds)):
        _fit_and_validate(validated, chosen, fold, place, plan, seed)
    return validated


def _fit_and_validate(
    validated: _Validated, chosen: Hyperparameters, fold: Fold, place: int, plan: Training, seed: int
) -> float:
    logits, epochs = fit_fold(make_network(fold, chosen, 1), fold, chosen, plan, _mixed(seed, place))
    auc = float(roc_auc(fold.validate_labels, logits))
    validated.logits.append(logits)
    validated.aucs.append(auc)
    validated.epochs.append(epochs)
    return auc


def _suggest(trial: Any, spec: ModelSpec) -> Hyperparameters:
    space = spec.training.search
    ranges = {
        name: trial.suggest_float(name, searched.low, searched.high, log=searched.log)
        for name, searched in (
            ("learning_rate", space.learning_rate),
            ("weight_decay", space.weight_decay),
            ("dropout", space.dropout),
        )
    }
    choices = {
        name: trial.suggest_categorical(name, list(accepted))
        for name, accepted in (("units", space.units), ("layers", space.layers), ("bins", space.bins))
    }
    return Hyperparameters(**ranges, **choices)


def _best_so_far(study: Any) -> float | None:
    try:
        return float(study.best_value)
    except ValueError:  # no trial is complete
        return None


def _fail_orphans(study: Any, storage: Any) -> None:
    """Fail the trials of processes that are gone for certain; those of a parallel worker are left alone."""
    import optuna
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = Owner.parse(trial.user_attrs.get("process", ""))
        if owner is not None and has_died(owner):
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)


def _table(study: Any) -> pd.DataFrame:
    rows = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "roc_auc": trial.value
            if trial.value is not None
            else max(trial.intermediate_values.items(), default=(0, np.nan))[1],
            "folds": len(trial.intermediate_values),
            "seconds": trial.duration.total_seconds() if trial.duration else np.nan,
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and trial.params
    ]
    return pd.DataFrame(rows)


def _plots(study: Any) -> dict[str, str]:
    from optuna import visualization

    figures = {
        "history": visualization.plot_optimization_history(study),
        "parallel_coordinates": visualization.plot_parallel_coordinate(study),
        "slices": visualization.plot_slice(study),
    }
    return {name: figure.to_html(full_html=True, include_plotlyjs="cdn") for name, figure in figures.items()}


def _mixed(seed: int, place: int) -> int:
    """A seed for one place, unlike its neighbours'."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0] % 2**31)


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        first = (str(error.__cause__ or error).splitlines() or [""])[0][:300]
        raise UnavailableError(f"the store of tuning studies does not answer: {first}") from error
