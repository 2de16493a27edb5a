"""What the prediction log says of a version, counted: requests, errors, slow answers, right decisions (R5.1, R5.2)."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace

import numpy as np

from lifecycle.findings import Finding, Verdict
from lifecycle.rollout import Counts, RolloutState, Stage, judge
from lifecycle.spec import Rollout as Plan

P95 = 0.95
WINDOW_S = 300.0
"""Seconds from one fresh count of a `Watch` to the next: its newest stretch is at most two of them."""
GUARD_ALPHA = 1e-5
"""Chance of a false alarm in one guarded window: with windows of five minutes about once a year."""


@dataclass(slots=True)
class _Bucket:
    requests: int = 0
    errors: int = 0
    labelled: int = 0
    right: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class Observer:
    """Counts one rollout step's answers as they are read from the log; each record is given once, in the log's order.

    Parameters
    ----------
    candidate, baseline
        The version that is judged, and the one beside it; None without one.
    since
        Unix seconds when the step began: earlier answers are the baseline's past alone.
    latency_ratio
        How many times the baseline's P95 counts as slow.
    least
        Baseline answers from which its P95 is taken; it is then kept for the whole step.
    """

    candidate: str
    baseline: str | None
    since: float
    latency_ratio: float
    least: int
    limit_ms: float | None = None
    _totals: dict[str, _Bucket] = field(default_factory=dict)
    _past: array[float] = field(default_factory=lambda: array("d"))
    _decisions: dict[str, dict[str, int]] = field(default_factory=dict)
    _compared: int = 0
    _agreed: int = 0

    def answered(
        self, request_id: str, at: float, version: str, latency_ms: float, decision: int | None, *, shadow: bool
    ) -> None:
        """Count an answer.

        Parameters
        ----------
        decision
            0 or 1; None when the version failed.
        shadow
            Whether nobody waited for it: its latency says nothing then.
        """
        if version not in (self.candidate, self.baseline):
            return
        if at < self.since:
            if version == self.baseline and not shadow:
                self._past.append(latency_ms)
            return
        bucket = self._totals.setdefault(version, _Bucket())
        bucket.requests += 1
        if decision is None:
            bucket.errors += 1
            return
        if not shadow:
            bucket.latencies.append(latency_ms)
        both = self._decisions.setdefault(request_id, {})
        both[version] = decision
        if len(both) > 1:
            self._compared += 1
            self._agreed += len(set(both.values())) == 1

    def labelled(self, request_id: str, label: int) -> None:
        """Count a label for every version that answered the request in this step."""
        for version, decision in self._decisions.get(request_id, {}).items():
            bucket = self._totals[version]
            bucket.labelled += 1
            bucket.right += decision == label

    def counts(self) -> tuple[Counts, Counts | None]:
        """Counts of the candidate, and of the baseline; None for a baseline that is not there."""
        self._settle_limit()
        mine = self._counts(self.candidate)
        return mine, None if self.baseline is None else self._counts(self.baseline)

    def _settle_limit(self) -> None:
        if self.limit_ms is not None or self.baseline is None:
            return
        seen = self._totals.get(self.baseline, _Bucket()).latencies
        known = self._past if len(self._past) >= self.least else seen
        if len(known) >= self.least:
            newest = np.frombuffer(known, dtype=np.float64)[-10_000:]
            self.limit_ms = self.latency_ratio * float(np.quantile(newest, P95))

    def _counts(self, version: str) -> Counts:
        bucket = self._totals.get(version, _Bucket())
        slow = 0
        if self.limit_ms is not None:
            slow = (
                int((np.frombuffer(bucket.latencies, dtype=np.float64) > self.limit_ms).sum())
                if bucket.latencies
                else 0
            )
        mine = version == self.candidate
        return Counts(
            bucket.requests,
            bucket.errors,
            slow,
            bucket.labelled,
            bucket.right,
            self._compared if mine else 0,
            self._agreed if mine else 0,
        )


class Watch:
    """A rollout step under guard: all of it, and its newest stretch, in which what turned bad later shows soonest.

    A version that answered well for a day and then fails must not be excused by its day: every `window` a fresh count
    begins, and two of them overlap, so that one always looks back at least a window.

    Parameters
    ----------
    state
        The rollout as it stands; another stage or step needs another watch.
    plan
        The model file's rollout section.
    window
        Seconds from one fresh count to the next.
    """

    def __init__(self, state: RolloutState, plan: Plan, window: float = WINDOW_S) -> None:
        self.state, self._plan, self._window = state, plan, window
        self._whole = self._fresh(state.since.timestamp())
        self._recent: list[Observer] = []

    def answered(
        self, request_id: str, at: float, version: str, latency_ms: float, decision: int | None, *, shadow: bool
    ) -> None:
        """Count an answer; as `Observer.answered`."""
        if at >= self._whole.since and (not self._recent or at >= self._recent[-1].since + self._window):
            # The limit of slowness stays the step's: a baseline that slows down with the candidate excuses nobody.
            fresh = self._fresh(at)
            fresh.limit_ms = self._whole.limit_ms
            self._recent = [*self._recent[-1:], fresh]
        elif at < self._whole.since:
            self._whole.answered(request_id, at, version, latency_ms, decision, shadow=shadow)
            return
        for one in self._all():
            one.answered(request_id, at, version, latency_ms, decision, shadow=shadow)

    def labelled(self, request_id: str, label: int) -> None:
        """Count a label; as `Observer.labelled`."""
        for one in self._all():
            one.labelled(request_id, label)

    def findings(self) -> list[Finding]:
        """Findings about the whole step, those about its newest stretch in their place where these are worse."""
        mine, its = self._whole.counts()
        found = {one.measure: one for one in judge(self._plan, mine, its)} if self._bounded else {}
        for recent in self._recent:
            recent.limit_ms = recent.limit_ms or self._whole.limit_ms
            mine, its = recent.counts()
            for one in judge(self._plan, mine, its, alpha=GUARD_ALPHA):
                if one.measure not in found or (
                    one.verdict is Verdict.FAIL and found[one.measure].verdict is not Verdict.FAIL
                ):
                    found[one.measure] = replace(one, window="newest stretch")
        return list(found.values())

    @property
    def _bounded(self) -> bool:
        """Whether the step ends by itself: a live version's life does not, and is judged by its newest stretch."""
        return self.state.stage is not Stage.LIVE

    def _all(self) -> list[Observer]:
        return [self._whole, *self._recent] if self._bounded else self._recent

    def _fresh(self, since: float) -> Observer:
        ratio, least = self._plan.rollback.latency_ratio, self._plan.min_requests
        return Observer(self.state.candidate, self.state.baseline, since, ratio, least)
