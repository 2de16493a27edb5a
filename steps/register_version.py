"""Register the candidate with its evidence, whatever was decided about it (R3.8, R11.1)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from zenml import log_metadata, step

from adapters.figures import (
    evaluation_figures,
    fairness_limits,
    gates_figure,
    history_figure,
    remedies_figure,
    trials_figure,
)
from adapters.model_card import render_html, render_markdown
from adapters.ops_store import OpsStore
from adapters.reference_file import encode
from adapters.registry import REFERENCE, TWIN, Registry
from adapters.saved_model import score
from adapters.services import Services, var_folder
from lifecycle.aliases import candidacy
from lifecycle.evaluation import Evaluation
from lifecycle.findings import Finding
from lifecycle.judgement import Judgement
from lifecycle.model_card import CardFacts, TuningFacts, build_card
from lifecycle.quality import QualityReport
from lifecycle.reference import reference_rows
from lifecycle.remedies import Remedy
from lifecycle.snapshot import Snapshot
from lifecycle.spec import ModelSpec, SplitStrategy
from lifecycle.splitting import Split
from lifecycle.trained_model import TrainedModel
from lifecycle.training import TuningResult
from steps.mirror_aliases import mirror_aliases
from steps.progress import tell

EXAMPLE_ROWS = 5


@step(enable_cache=False)
def register_version(
    snapshot: Snapshot,
    quality: QualityReport,
    split: Split,
    tuning: TuningResult,
    model: TrainedModel,
    twin: bytes,
    twin_findings: list[dict[str, Any]],
    no_twin: str,
    evaluation: Evaluation,
    remedies: list[dict[str, Any]],
    judgement: Judgement,
    spec: ModelSpec,
    run_id: str,
    facts: dict[str, str],
) -> Annotated[str, "version"]:
    """Put the version into the registry and on record.

    Parameters
    ----------
    snapshot, quality, split, tuning, model, twin, twin_findings, no_twin, evaluation, remedies, judgement
        The evidence.
    spec
        The model file.
    run_id
        The ops store's run.
    facts
        What is recorded with the version: environment, stack, reason, who asked, code revision, lock hash.

    Returns
    -------
    str
        The version's number.
    """
    tell("register", "registry")
    services = Services.from_environment()
    registry = Registry(services.registry)
    state = judgement.decision.state.value
    tags = {
        "content": model.content,
        "decision": state,
        "reasons": "; ".join(judgement.decision.reasons),
        "snapshot": snapshot.name,
        "as_of": snapshot.as_of.isoformat(),
        "config_hash": spec.fingerprint(),
        "seed": str(spec.training.seed),
        "threshold": repr(evaluation.threshold),
        "data_checks": f"{len(quality.findings)}, {quality.verdict.label}",
        "folds_roc_auc": ", ".join(f"{auc:.4f}" for auc in tuning.fold_aucs),
        "twin": f"none: {no_twin}" if no_twin else "; ".join(str(one["reason"]) for one in twin_findings),
        "gates": "; ".join(f"{one.measure} on {one.subject}: {one.verdict.label}" for one in judgement.findings),
        **facts,
    }
    registered = registry.register(
        spec.name,
        str(model.facts["mlflow_run"]),
        model.folder,
        snapshot.frame.iloc[split.holdout[:EXAMPLE_ROWS]][spec.feature_names],
        {name: found.value for name, found in evaluation.metrics.items() if found.value is not None},
        tags,
    )
    tell("register", "model card")
    proposed = [Remedy.from_dict(remedy) for remedy in remedies]
    card = build_card(
        spec,
        CardFacts(
            version=registered.version,
            identity={
                "run": run_id,
                **{name: tags[name] for name in ("snapshot", "config_hash", "content")},
                **facts,
            },
            as_of=snapshot.as_of,
            window=f"the {spec.source.window} from {snapshot.window_start:%Y-%m-%d}",
            counts=snapshot.counts,
            train_rows=len(split.train),
            holdout_rows=len(split.holdout),
            tuning=TuningFacts(
                trials=tuning.trials["state"].value_counts().to_dict(),
                best=tuning.best.to_dict(),
                fold_aucs=tuning.fold_aucs,
                epochs=tuning.epochs,
                ensemble=spec.training.ensemble,
                threshold=evaluation.threshold,
            ),
            quality=quality.findings,
            remedies=proposed,
        ),
        evaluation,
        judgement.findings,
        judgement.decision,
    )
    limits = fairness_limits(judgement.findings)
    figures = {
        **evaluation_figures(evaluation, limits=limits),
        "gates": gates_figure(judgement.findings),
        **({"remedies": remedies_figure(proposed, limits)} if proposed else {}),
        "trials": trials_figure(tuning.trials),
        "history": _history(spec, snapshot, split),
    }
    page = render_html(card, figures)
    holdout = snapshot.frame.iloc[split.holdout]
    registry.describe(spec.name, registered.version, f"{card.lead}\n\n{card.verdict_text}")
    registry.attach(
        registered.run,
        {
            "card/model_card.md": render_markdown(card, {name: f"../figures/{name}.png" for name in figures}),
            "card/model_card.html": page,
            "quality/data_docs.html": quality.data_docs,
            **{f"figures/{name}.png": picture for name, picture in figures.items()},
            **{f"tuning/{name}.html": plot for name, plot in tuning.plots.items()},
            **({TWIN: twin} if twin else {}),
            REFERENCE: encode(reference_rows(spec, holdout, score(model.folder, holdout))),
        },
    )
    place = var_folder() / "cards" / f"{spec.name}-{registered.version}.html"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(page, encoding="utf-8")
    now = datetime.now(UTC)
    ops = OpsStore.open(services.ops)
    ops.record_findings(
        run_id, "twin", [Finding.from_dict(one) for one in twin_findings], now, spec.name, registered.version
    )
    reasons = judgement.decision.reasons
    if any(one.version == registered.version for one in ops.versions(spec.name)):
        ops.judge_version(spec.name, registered.version, run_id, state, reasons, now)
    else:
        ops.record_version(
            spec.name, registered.version, run_id, snapshot.name, spec.fingerprint(), state, reasons, now,
            config=spec.model_dump(mode="json"),
        )  # fmt: skip
    decide = partial(candidacy, registered.version, approved=judgement.decision.approved)
    where = facts["environment"]
    ops.assign_aliases(spec.name, decide, actor=f"run {run_id}", reason=reasons[0], now=now, environment=where)
    mirror_aliases(ops, registry, spec.name, where, now)
    ops.set_run_facts(
        run_id,
        {
            "decision": state,
            "summary": f"version {registered.version} {state}",
            "version": registered.version,
            "created": registered.created,
            "snapshot": snapshot.name,
            "content": model.content,
            "card": str(place),
            "metrics": {name: found.value for name, found in evaluation.metrics.items()},
            "rows": snapshot.counts.to_dict(),
        },
        now,
    )
    log_metadata(metadata={"version": registered.version, "decision": state, "mlflow_run": registered.run})
    tell("register", f"version {registered.version}, {state}", 1, 1)
    return registered.version


def _history(spec: ModelSpec, snapshot: Snapshot, split: Split) -> bytes:
    when = snapshot.frame[spec.source.timestamp]
    by_time = spec.training.split.strategy is SplitStrategy.TIME
    return history_figure(
        when,
        snapshot.frame[spec.label.column],
        holdout_start=when.iloc[split.holdout].min() if by_time else None,
        positive=spec.label.meaning,
    )
