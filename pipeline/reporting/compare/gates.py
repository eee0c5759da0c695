"""Does the head pass? Limits of params.yaml on what a change may cost, each with its reason in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline import metrics
from pipeline.metrics import bootstrap
from pipeline.metrics.comparison import NOT_COMPARABLE, Difference
from pipeline.params import Gate
from pipeline.reporting.compare import Comparison, RunComparison, SeedSpread
from pipeline.reporting.scores import printed


@dataclass(frozen=True)
class Outcome:
    """One gate on one run.

    Attributes:
        run, metric: what was held against the gate.
        passed: whether it is kept.
        reason: one sentence with the numbers.
    """

    run: str
    metric: str
    passed: bool
    reason: str


def judge(comparison: Comparison, gates: Mapping[str, Mapping[str, Gate]]) -> list[Outcome]:
    """Every gate on every run whose name fits its pattern; a gate that fits no run with its metric fails.

    Args:
        comparison: of two revisions.
        gates: by pattern of run names (`*` stands for any letters), then by metric.
    """
    found = []
    for pattern, by_metric in gates.items():
        for metric, gate in by_metric.items():
            outcomes = [
                _outcome(run, metric, gate)
                for run in comparison.runs
                if fnmatchcase(run.title, pattern) and _has(run, metric)
            ]
            found += outcomes or [Outcome(pattern, metric, False, "no run of this name has this metric")]
    return found


def _has(run: RunComparison, metric: str) -> bool:
    return any(arm is not None and metric in arm.figures for arm in (run.base, run.head))


def _outcome(run: RunComparison, metric: str, gate: Gate) -> Outcome:
    if run.head is None:
        return Outcome(run.title, metric, False, "the head has no report of this run")
    value = run.head.figures.get(metric)
    if value is None:
        return Outcome(run.title, metric, False, "undefined in the head")
    known = metrics.lookup(run.task, metric)
    is_lower_better = known is not None and known.higher_is_better is False
    if gate.floor is not None:
        short = value > gate.floor if is_lower_better else value < gate.floor
        limit = "at most" if is_lower_better else "at least"
        if short:
            return Outcome(run.title, metric, False, f"{printed(value)}, must be {limit} {printed(gate.floor)}")
    if gate.min_delta is None or run.base is None:
        new = ", a new run" if run.base is None else ""
        return Outcome(run.title, metric, True, f"{printed(value)}{new}")
    if run.unequal:
        what = ", ".join(change.what for change in run.unequal)
        return Outcome(run.title, metric, False, f"not comparable: the protocols differ in {what}")
    difference = next((one for one in run.differences if one.metric == metric), None)
    if difference is not None and difference.verdict == NOT_COMPARABLE:
        return Outcome(run.title, metric, False, "not comparable: its rule or the code behind it differs")
    if difference is None or difference.difference is None:
        return Outcome(run.title, metric, False, "undefined in the base")
    sign = -1 if is_lower_better else 1
    # an ensemble is one answer: what its members score alone is not its figure
    spreads = [
        arm.seeds.get(metric) if "ensemble" not in arm.pairs("protocol") else None for arm in (run.base, run.head)
    ]
    if spreads[0] is not None and spreads[1] is not None:
        return _held_by_seeds(run.title, difference, spreads[0], spreads[1], gate.min_delta, gate.level, sign)
    return _held(run.title, difference, gate.min_delta, gate.level, sign)


def _held_by_seeds(
    run: str, one: Difference, base: SeedSpread, head: SeedSpread, min_delta: float, level: float | None, sign: int
) -> Outcome:
    """The difference of the means over seeds; its interval holds the noise of the seeds (Welch 1947) and of the images.

    The variances of both add up; the quantile is Student's, with Welch's degrees of freedom of the seeds.
    """
    from scipy import stats

    difference = head.mean - base.mean
    words = f"{difference:+.4f} in the mean of {base.num} and {head.num} seeds"
    if level is None:
        return Outcome(run, one.metric, sign * difference >= min_delta, f"{words}, at least {min_delta:+g} is asked")
    parts = [spread.std**2 / spread.num for spread in (base, head)]
    of_seeds, of_images = sum(parts), float(one.drawn.var()) if len(one.drawn) else 0.0
    freedom = (
        of_seeds**2 / sum(part**2 / (s.num - 1) for part, s in zip(parts, (base, head), strict=True))
        if of_seeds
        else 1e9
    )
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * (of_seeds + of_images) ** 0.5
    passed = sign * difference + reach >= min_delta
    said = "not below" if passed else "all of it below"
    interval = f"{level:.0%} interval {difference - reach:+.4f} to {difference + reach:+.4f}"
    return Outcome(run, one.metric, passed, f"{words}, {interval}: {said} a gain of {min_delta:+g}")


def _held(run: str, one: Difference, min_delta: float, level: float | None, sign: int) -> Outcome:
    """A difference against the least that is allowed; gains count as positive for metrics where lower is better too."""
    assert one.difference is not None
    gain = sign * one.difference
    words = f"{one.difference:+.4f}"
    if level is None:
        passed = gain >= min_delta
        return Outcome(run, one.metric, passed, f"{words}, a gain of at least {min_delta:+g} is asked")
    ends = bootstrap.interval(sign * one.drawn, level)
    if ends is None:
        return Outcome(
            run, one.metric, gain >= min_delta, f"{words} without interval, at least {min_delta:+g} is asked"
        )
    low, high = sorted(sign * end for end in ends)
    interval = f"{level:.0%} interval {low:+.4f} to {high:+.4f}"
    passed = ends[1] >= min_delta
    said = "not below" if passed else "all of it below"
    return Outcome(run, one.metric, passed, f"{words}, {interval}: {said} a gain of {min_delta:+g}")
