"""What the card of a version says, assembled from its record: every claim with the figures behind it (R11.1).

The content is plain values; how it looks in Markdown or HTML is decided elsewhere, and so is escaping: texts here
may come from data and model files as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from scipy.stats import binomtest

from lifecycle.evaluation import Estimate, Evaluation
from lifecycle.fairness import RATES, AttributeFairness, GroupFigures
from lifecycle.findings import Finding, Verdict
from lifecycle.gates import Decision
from lifecycle.measures import MEASURES
from lifecycle.remedies import Outcome, Remedy
from lifecycle.snapshot import FetchCounts
from lifecycle.spec import CategoricalFeature, Feature, ModelSpec, NumericFeature, Sensitivity, SplitStrategy

NO_DATA = "no data"

# Who has to approve a deployment (R4.5).
_APPROVAL = {
    Sensitivity.NON_SENSITIVE: "none: a non-sensitive model is deployed automatically once its gates are passed",
    Sensitivity.SENSITIVE: "one person's, because the model is sensitive",
    Sensitivity.CRITICAL: "a committee's, because the model is critical",
}
# fairlearn's names of what a remedy makes equal, as people say it.
_MADE_EQUAL = {
    "demographic_parity": "equal share decided positive",
    "true_positive_rate_parity": "equal recall",
}


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; the columns in `numeric` are numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure by its name, and what it shows in words for those who do not see it."""

    name: str
    caption: str


Block = Paragraph | Bullets | Table | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a title."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A card.

    Parameters
    ----------
    title, lead
        The model's name with its version, and what it predicts.
    verdict, verdict_text
        What was decided about the version, in a word and in a sentence.
    sections
        In the order people read.
    """

    title: str
    lead: str
    verdict: Verdict
    verdict_text: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class TuningFacts:
    """How the hyper-parameters were found.

    Parameters
    ----------
    trials
        State (complete, pruned, fail): how many trials.
    best
        Hyper-parameters of the best trial.
    fold_aucs
        Its ROC AUC on each fold.
    epochs, ensemble
        Passes over the data of the final fit, and networks averaged.
    threshold
        Decision threshold on the calibrated probability.
    """

    trials: Mapping[str, int]
    best: Mapping[str, Any]
    fold_aucs: Sequence[float]
    epochs: int
    ensemble: int
    threshold: float


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the record says of a version, beside its evaluation.

    Parameters
    ----------
    version
        Number in the registry; None before it has one.
    identity
        What it was made from and why: snapshot, config hash, Git revision, lock hash, seed, trigger, reason, ...
        in the order to be shown.
    as_of, window
        The moment the data was seen from, and the window in words.
    counts
        Rows of the fetch, and what was left out.
    train_rows, holdout_rows
        Rows of the split.
    tuning
        How the hyper-parameters were found.
    quality
        Findings of data quality and of the leak check.
    remedies
        What could be done about gaps between groups, and what each came to.
    """

    version: str | None
    identity: Mapping[str, Any]
    as_of: datetime
    window: str
    counts: FetchCounts
    train_rows: int
    holdout_rows: int
    tuning: TuningFacts | None = None
    quality: Sequence[Finding] = ()
    remedies: Sequence[Remedy] = field(default_factory=tuple)


def build_card(
    spec: ModelSpec, facts: CardFacts, evaluation: Evaluation, findings: Sequence[Finding], decision: Decision
) -> ModelCard:
    """Assemble the card of a version.

    Parameters
    ----------
    spec
        The model file the version was made from.
    facts
        The record beside the evaluation.
    evaluation
        The candidate on its hold-out.
    findings, decision
        What the gates found, and what follows.
    """
    sections = (
        _purpose(spec, evaluation, decision),
        _version(spec, facts),
        _decision(findings, decision),
        _measures(spec, evaluation),
        _comparison(evaluation),
        _slices(evaluation),
        _fairness(spec, evaluation, facts.remedies),
        _data(spec, facts, evaluation),
        _features(spec),
        _training(spec, facts),
        _limits(spec, facts, evaluation, findings),
    )
    number = f" version {facts.version}" if facts.version else ""
    return ModelCard(
        title=f"{spec.name}{number}",
        lead=spec.description,
        verdict=Verdict.PASS if decision.approved else Verdict.FAIL,
        verdict_text=_verdict_text(decision),
        sections=tuple(section for section in sections if section.blocks),
    )


def number(value: float | None) -> str:
    """A number for people, four digits; None, NaN and infinities are "no data".

    Examples
    --------
    >>> number(0.70271), number(12345.6), number(None)
    ('0.7027', '12,346', 'no data')
    """
    if value is None or not math.isfinite(value):
        return NO_DATA
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def estimate_text(estimate: Estimate | None) -> str:
    """A value with its interval."""
    if estimate is None or number(estimate.value) == NO_DATA:
        return NO_DATA
    if estimate.low is None or estimate.high is None:
        return f"{number(estimate.value)} (no interval)"
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def group_rate(group: GroupFigures, rate: str, confidence: float = 0.95) -> Estimate:
    """A rate of one group with its interval (Wilson, 1927).

    Parameters
    ----------
    group
        Its counts.
    rate
        ``selection_rate``, ``true_positive_rate`` or ``precision``.
    confidence
        Level of the interval, 0..1.

    Returns
    -------
    Estimate
        Without a value where the group has nothing to take the rate of.
    """
    part, whole = {
        "selection_rate": (group.selected, group.rows),
        "true_positive_rate": (group.true_positives, group.positives),
        "precision": (group.true_positives, group.selected),
    }[rate]
    return share_estimate(part, whole, confidence)


def share_estimate(part: int, whole: int, confidence: float = 0.95) -> Estimate:
    """A share with its interval (Wilson, 1927); without a value when there is nothing to take it of."""
    if whole == 0:
        return Estimate(None)
    interval = binomtest(part, whole).proportion_ci(confidence, method="wilson")
    return Estimate(part / whole, float(interval.low), float(interval.high))


def measure_text(name: str) -> str:
    """A measure's name as people write it."""
    return (
        name.replace("_", " ")
        .replace("roc auc", "ROC AUC")
        .replace("f1", "F1")
        .replace("brier", "Brier score")
        .replace("value per 1000", "value per 1,000")
    )


def _verdict_text(decision: Decision) -> str:
    if not decision.approved:
        return f"Rejected: {len(decision.reasons)} reason{'' if len(decision.reasons) == 1 else 's'}, listed below."
    if decision.overridden:
        return (
            f"Approved with {len(decision.overridden)} recorded override{'' if len(decision.overridden) == 1 else 's'}."
        )
    return "Approved: every gate is passed."


def _purpose(spec: ModelSpec, evaluation: Evaluation, decision: Decision) -> Section:
    business = spec.business
    values = ", ".join(
        f"{name} {number(value)}"
        for name, value in (
            ("right positive", business.true_positive),
            ("wrong positive", business.false_positive),
            ("right negative", business.true_negative),
            ("missed positive", business.false_negative),
        )
    )
    return Section(
        "What it is for",
        (
            Paragraph(
                f"It gives the probability that a row {spec.label.meaning}, for one decision: {business.decision}. "
                f"At a probability of {number(evaluation.threshold)} or more the decision is positive. "
                f"Worth of an outcome in {business.currency}: {values}."
            ),
            Bullets(
                (
                    "Not for another decision: the threshold and the gates were chosen for this one.",
                    f"Not for rows unlike those of {spec.source.table} in the window below: other places, "
                    "other times and other kinds of cases were not measured.",
                    "Not as a ground by itself to treat a person or a case differently: the probability is right "
                    "about groups of rows, not about one.",
                    *(() if decision.approved else ("Not for deployment: it was rejected, see the gates.",)),
                )
            ),
        ),
    )


def _version(spec: ModelSpec, facts: CardFacts) -> Section:
    rows = [
        ("Owner", f"{spec.owner.team}, {spec.owner.contact}"),
        ("Tier", spec.tier.value),
        ("Sensitivity", spec.sensitivity.value.replace("_", "-")),
        ("Approval needed", _APPROVAL[spec.sensitivity]),
        *((str(name).replace("_", " ").capitalize(), _plain(value)) for name, value in facts.identity.items()),
    ]
    return Section("Owner and version", (Table(("Fact", "Value"), tuple(rows)),))


def _decision(findings: Sequence[Finding], decision: Decision) -> Section:
    blocks: list[Block] = [Bullets(decision.reasons)] if decision.reasons else []
    if decision.overridden:
        blocks += [
            Paragraph("Overridden, each by a person who answers for it until a date:"),
            Bullets(decision.overridden),
        ]
    if any(" against " in one.measure for one in findings):
        blocks.append(Paragraph("The value of a comparison is the worst end of the interval of its improvement."))
    blocks.append(
        Table(
            ("Gate", "On", "Value", "Asked", "Verdict", "Why"),
            tuple(
                (
                    measure_text(one.measure),
                    one.subject,
                    estimate_text(_as_estimate(one)),
                    "" if one.threshold is None else f"{one.direction.sign} {number(one.threshold)}",
                    one.verdict.label,
                    one.reason,
                )
                for one in findings
            ),
            numeric=(2, 3),
        )
    )
    blocks.append(Picture("gates", "Distance of each gate's value to its threshold, with its verdict."))
    return Section("Gates and decision", tuple(blocks))


def _as_estimate(finding: Finding) -> Estimate:
    low, high = finding.interval or (None, None)
    return Estimate(finding.value, low, high)


def _measures(spec: ModelSpec, evaluation: Evaluation) -> Section:
    blocks: list[Block] = [
        Paragraph(
            f"Measured on {evaluation.window}: {evaluation.rows:,} rows, {evaluation.positives:,} of them positive"
            f"{_percent(evaluation.positives, evaluation.rows)}. In brackets the {evaluation.confidence:.0%} interval "
            f"of {evaluation.resamples:,} bootstrap resamples."
        )
    ]
    if evaluation.invalid_scores:
        blocks.append(
            Paragraph(f"{evaluation.invalid_scores:,} scores are no probabilities: nothing below has a value.")
        )
    blocks.append(
        Table(
            ("Measure", "Candidate", *(measure_text(name) for name in evaluation.baselines), "Meaning"),
            tuple(
                (
                    measure_text(name),
                    estimate_text(found),
                    *(estimate_text(table.get(name)) for table in evaluation.baselines.values()),
                    _meaning(name, evaluation.currency),
                )
                for name, found in evaluation.metrics.items()
            ),
            numeric=tuple(range(1, 2 + len(evaluation.baselines))),
        )
    )
    counts = evaluation.confusion
    if counts is not None:
        blocks.append(
            Table(
                ("Outcome", "Decided positive", "Decided negative"),
                (
                    (f"{spec.label.meaning}", f"{counts.true_positive:,}", f"{counts.false_negative:,}"),
                    ("otherwise", f"{counts.false_positive:,}", f"{counts.true_negative:,}"),
                ),
                numeric=(1, 2),
            )
        )
    blocks += [
        Picture("roc", "ROC curve: true positive rate over false positive rate."),
        Picture("precision_recall", "Precision over recall, above the share of positives."),
        Picture("calibration", "Share that was positive over the predicted probability, with rows a bin."),
        Picture("scores", "Predicted probabilities of each class, with the decision threshold."),
        Picture("confusion", "Rows by decision and outcome."),
        Picture("value", "Business value at every decision threshold."),
    ]
    return Section("Measures", tuple(blocks))


def _meaning(name: str, currency: str) -> str:
    measure = MEASURES[name]
    unit = f"; in {currency}" if measure.unit.startswith("currency") else ""
    return f"{measure.meaning}{unit}; {'higher' if measure.higher_is_better else 'lower'} is better"


def _comparison(evaluation: Evaluation) -> Section:
    names = list(evaluation.comparisons)
    if not names:
        return Section("Against baselines", ())
    measures = dict.fromkeys(measure for table in evaluation.comparisons.values() for measure in table)
    champion = (
        "" if "champion" in evaluation.baselines else " There is no champion yet: this would be the first version."
    )
    return Section(
        "Against baselines",
        (
            Paragraph(
                "Improvement of the candidate over each baseline on the same rows, with the interval of the paired "
                f"difference. Above 0 the candidate is better, whichever way the measure points.{champion}"
            ),
            Table(
                ("Measure", *(f"over {measure_text(name)}" for name in names)),
                tuple(
                    (measure_text(one), *(estimate_text(evaluation.comparisons[name].get(one)) for name in names))
                    for one in measures
                ),
                numeric=tuple(range(1, 1 + len(names))),
            ),
            Picture("comparisons", "Improvement over each baseline with paired intervals."),
        ),
    )


def _slices(evaluation: Evaluation) -> Section:
    if not evaluation.slices:
        return Section("Slices", ())
    return Section(
        "Slices",
        (
            Paragraph("A slice decides nothing; it tells where the model is better or worse than as a whole."),
            Table(
                ("Feature", "Value", "Rows", "Positive", "ROC AUC", "Recall", "Precision", "Verdict", "Why"),
                tuple(
                    (
                        one.column,
                        one.label,
                        f"{one.rows:,}",
                        f"{one.positives:,}",
                        *(estimate_text(one.metrics.get(name)) for name in ("roc_auc", "recall", "precision")),
                        one.verdict.label,
                        one.reason,
                    )
                    for one in evaluation.slices
                ),
                numeric=(2, 3, 4, 5, 6),
            ),
            Picture("slices", "ROC AUC of each slice with its interval."),
        ),
    )


def _fairness(spec: ModelSpec, evaluation: Evaluation, remedies: Sequence[Remedy]) -> Section:
    if not evaluation.fairness:
        told = (
            "No sensitive attribute is declared in the model file: differences between groups of people were not judged."
            if not spec.sensitive
            else "No figures: the hold-out could not be scored."
        )
        return Section("Fairness", (Paragraph(told),))
    blocks: list[Block] = []
    columns = {attribute.name: attribute.column for attribute in spec.sensitive}
    for name, attribute in evaluation.fairness.items():
        column = columns.get(name, name)
        used = "also a feature" if column in spec.feature_names else "not a feature: the model does not see it directly"
        blocks.append(Paragraph(f"{name.capitalize()} (column {column}, {used}):"))
        blocks += _attribute(name, attribute, evaluation.confidence)
    if spec.training.mitigation is not None:
        blocks.append(
            Paragraph(
                f"The training was mitigated: {spec.training.mitigation.method} on {spec.training.mitigation.attribute}."
            )
        )
    if remedies:
        blocks += _remedies(spec, remedies)
    return Section("Fairness", tuple(blocks))


def _attribute(name: str, attribute: AttributeFairness, confidence: float) -> list[Block]:
    groups = Table(
        ("Group", "Rows", "Positive", "Decided positive", "Share decided positive", "Recall", "Precision"),
        tuple(
            (
                one.label,
                f"{one.rows:,}",
                f"{one.positives:,}",
                f"{one.selected:,}",
                *(
                    NO_DATA
                    if one.label not in attribute.disparities[measure].judged
                    else estimate_text(group_rate(one, rate, confidence))
                    for measure, (rate, _) in RATES.items()
                ),
            )
            for one in attribute.groups
        ),
        numeric=(1, 2, 3, 4, 5, 6),
    )
    gaps = Table(
        ("Measure", "Difference", "Between", "Too small to judge"),
        tuple(
            (
                measure_text(measure),
                estimate_text(Estimate(one.difference, one.low, one.high)),
                ""
                if one.highest is None or one.lowest is None
                else f"{one.highest} {number(one.highest_value)} and {one.lowest} {number(one.lowest_value)}",
                "; ".join(f"{group}: {why}" for group, why in one.no_data.items()) or "none",
            )
            for measure, one in attribute.disparities.items()
        ),
        numeric=(1,),
    )
    return [groups, gaps, Picture(f"fairness_{name}", f"The three rates of each group of {name}.")]


def made_equal(remedy: Remedy) -> str:
    """What a remedy makes equal between groups, in words."""
    return _MADE_EQUAL.get(remedy.constraint, remedy.constraint.replace("_", " "))


def _remedies(spec: ModelSpec, remedies: Sequence[Remedy]) -> list[Block]:
    rows = []
    for attribute in dict.fromkeys(one.attribute for one in remedies):
        own = [one for one in remedies if one.attribute == attribute]
        rows.append((f"{attribute}: as it is", *_outcome(own[0].before, own[0].currency)))
        rows += [(f"{attribute}: {one.method}, {made_equal(one)}", *_outcome(one.after, one.currency)) for one in own]
    notes = list(dict.fromkeys(one.note for one in remedies if one.note))
    notes += dict.fromkeys(
        f"{one.attribute}: groups too small to fit were left as they are: {', '.join(one.left_out)}."
        for one in remedies
        if one.left_out
    )
    if spec.training.mitigation is None:
        notes.append(
            "The other way is to train with weights that make group and outcome independent (training.mitigation in "
            "the model file); it is measured as any candidate is."
        )
    return [
        Paragraph(
            "What could be done next about the gaps, fitted on validation rows, measured on the hold-out; accuracy "
            "and business value without intervals:"
        ),
        Table(
            ("What is done", *(measure_text(name) for name in RATES), "Accuracy", "Business value per 1,000"),
            tuple(rows),
            numeric=tuple(range(1, 3 + len(RATES))),
        ),
        Picture("remedies", "Gaps and business value without and with each remedy."),
        Bullets(tuple(notes)),
    ]


def _outcome(outcome: Outcome, currency: str) -> tuple[str, ...]:
    gaps = [Estimate(outcome.gaps.get(name), *outcome.intervals.get(name, (None, None))) for name in RATES]
    return (
        *map(estimate_text, gaps),
        number(outcome.accuracy),
        f"{number(outcome.business_value_per_1000)} {currency}",
    )


def _data(spec: ModelSpec, facts: CardFacts, evaluation: Evaluation) -> Section:
    counts = facts.counts
    taken = (
        f"a seeded uniform sample of them, because more than {spec.source.max_rows:,} were eligible (source.max_rows)"
        if counts.sampled
        else "all of them"
    )
    rows = [
        ("In the window", counts.in_window, f"{spec.source.table}, {facts.window}, as-of {_moment(facts.as_of)}"),
        (
            "Left out: label not yet known",
            counts.not_yet_labelled,
            f"younger than the label delay of {spec.label.delay}",
        ),
        ("Left out: never labelled", counts.never_labelled, "old enough, but the outcome was never recorded"),
        ("Eligible", counts.eligible, "with a known label"),
        ("Used", counts.rows, taken),
        ("Training part", facts.train_rows, f"split by {spec.training.split.strategy.value}"),
        ("Hold-out", facts.holdout_rows, f"{evaluation.window}; seen by no fit and no trial"),
    ]
    blocks: list[Block] = [
        Table(
            ("Rows", "Count", "Why"),
            tuple((name, f"{count:,}", why) for name, count, why in rows),
            numeric=(1,),
        ),
        Picture("history", "Rows and label rate over time, with the start of the hold-out."),
    ]
    if facts.quality:
        told = [one for one in facts.quality if one.verdict is not Verdict.PASS]
        blocks.append(
            Paragraph(
                f"{len(facts.quality) - len(told):,} of {len(facts.quality):,} data checks are met"
                f"{'. The others:' if told else '.'}"
            )
        )
        if told:
            blocks.append(Bullets(tuple(f"{one.verdict.label}: {one.reason}" for one in told)))
    return Section("Data", tuple(blocks))


def _features(spec: ModelSpec) -> Section:
    return Section(
        "Features",
        (
            Table(
                ("Feature", "Type", "Unit", "Accepted values", "Missing accepted", "Meaning"),
                tuple(
                    (
                        one.name,
                        one.type,
                        (one.unit or "") if isinstance(one, NumericFeature) else "",
                        _accepted(one),
                        f"{one.max_missing:.0%}",
                        one.meaning,
                    )
                    for one in spec.features
                ),
                numeric=(4,),
            ),
            *(
                (
                    Paragraph(
                        "Known only after the event, and therefore never a feature: "
                        + ", ".join(spec.after_event)
                        + "."
                    ),
                )
                if spec.after_event
                else ()
            ),
        ),
    )


def _accepted(feature: Feature) -> str:
    if isinstance(feature, CategoricalFeature):
        if feature.values is None:
            return "open list"
        return ", ".join(
            f"{value} ({feature.labels[value]})" if value in feature.labels else value for value in feature.values
        )
    low = "" if feature.min is None else f"{feature.min:g}"
    high = "" if feature.max is None else f"{feature.max:g}"
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else f"{high} or less" if high else "any number"


def _training(spec: ModelSpec, facts: CardFacts) -> Section:
    training, tuning = spec.training, facts.tuning
    rows = [
        ("Split", _split_text(spec)),
        ("Folds", f"{training.split.folds} inside the training part"),
        ("Seed", str(training.seed)),
    ]
    if tuning is not None:
        states = ", ".join(f"{count} {state}" for state, count in tuning.trials.items()) or "none"
        folds = ", ".join(number(auc) for auc in tuning.fold_aucs) or NO_DATA
        rows += [
            ("Trials", states),
            (
                "Best hyper-parameters",
                ", ".join(f"{name.replace('_', ' ')} {_plain(v)}" for name, v in tuning.best.items()),
            ),
            ("ROC AUC of the best trial on each fold", folds),
            ("Final fit", f"{tuning.ensemble} networks averaged, {tuning.epochs} epochs each"),
            ("Decision threshold", f"{number(tuning.threshold)}, worth most on validation rows"),
        ]
    if training.mitigation is not None:
        rows.append(("Mitigation", f"{training.mitigation.method} on {training.mitigation.attribute}"))
    return Section(
        "Training",
        (Table(("Setting", "Value"), tuple(rows)), Picture("trials", "ROC AUC of each trial and the best so far.")),
    )


def _split_text(spec: ModelSpec) -> str:
    split = spec.training.split
    how = {
        SplitStrategy.TIME: "the newest rows are held out",
        SplitStrategy.STRATIFIED: "held out at random, with the share of positives kept",
        SplitStrategy.GROUPED: f"whole groups of {split.group} are held out",
    }[split.strategy]
    return f"{how}: {split.holdout:.0%}"


def _limits(spec: ModelSpec, facts: CardFacts, evaluation: Evaluation, findings: Sequence[Finding]) -> Section:
    told: list[str] = []
    unequal = [one for one in findings if one.measure in RATES and one.verdict in (Verdict.WARN, Verdict.FAIL)]
    if unequal:
        told.append(
            "It treats groups more differently than accepted: "
            + "; ".join(
                f"{measure_text(one.measure)} on {one.subject} {estimate_text(_as_estimate(one))}, "
                f"accepted {one.direction.sign} {number(one.threshold)}"
                for one in unequal
            )
            + "."
        )
    unjudged = [one for one in findings if one.verdict is Verdict.NO_DATA]
    if unjudged:
        told.append(
            "Gates that could not be judged: "
            + ", ".join(f"{measure_text(one.measure)} on {one.subject}" for one in unjudged)
            + "."
        )
    small = [one for one in evaluation.slices if one.verdict is Verdict.NO_DATA]
    if small:
        told.append(
            f"{len(small)} of {len(evaluation.slices)} slices are too small to judge (fewer than "
            f"{spec.evaluation.min_group_rows:,} rows, or one class): "
            + ", ".join(f"{one.column} = {one.label}" for one in small[:10])
            + (" and others." if len(small) > 10 else ".")
        )
    groups = sorted(
        {group for one in evaluation.fairness.values() for d in one.disparities.values() for group in d.no_data}
    )
    if groups:
        told.append(f"Groups too small to judge in at least one measure of fairness: {', '.join(groups)}.")
    worse = [one for one in evaluation.slices if one.verdict is Verdict.WARN]
    if worse:
        told.append(
            "Slices that miss a gate's bound: " + ", ".join(f"{one.column} = {one.label}" for one in worse) + "."
        )
    error = estimate_text(evaluation.metrics.get("expected_calibration_error"))
    told.append(
        "How far the probabilities are off on the hold-out was not measured."
        if error == NO_DATA
        else f"On the hold-out the probabilities are off by {error} in the mean."
    )
    if facts.counts.never_labelled:
        told.append(
            f"{facts.counts.never_labelled:,} rows{_percent(facts.counts.never_labelled, facts.counts.in_window)} never "
            "got a label and were not learned from; if they differ from the rest, so will the model's errors on them."
        )
    told.append(f"The data ends at {_moment(facts.as_of)}: what changed since then is not in the model.")
    return Section("Limits", (Bullets(tuple(told)),))


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".rstrip()


def _percent(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return number(value) if isinstance(value, float) else str(value)
