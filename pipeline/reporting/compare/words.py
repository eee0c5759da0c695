"""A comparison as rows of plain text, from which the terminal, Markdown and the page are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.metrics import comparison
from pipeline.metrics.comparison import Difference
from pipeline.reporting.compare import Comparison, RunComparison, SeedSpread
from pipeline.reporting.judging import Change
from pipeline.reporting.scores import printed, score, signed

HEADLINES = ("run", "metric", "base", "head", "change", "interval", "p", "verdict")
MARKS = {"better": "▲", "worse": "▼", "differs": "◆", "identical": "=", "no evidence": "~", "not comparable": "≠"}


def counts(comparison: Comparison) -> str:
    """How many runs came to which verdict, such as `2 better, 10 identical`."""
    found = Counter(run.verdict for run in comparison.runs)
    return ", ".join(f"{number} {verdict}" for verdict, number in found.most_common()) or "no runs"


def headline_row(run: RunComparison) -> list[str]:
    """One line of the overview, in the order of `HEADLINES`."""
    one = run.headline
    if one is None or run.base is None or run.head is None:
        return [run.title, "", "", "", "", "", "", marked(run.verdict)]
    return [run.title, *metric_row(run.task, one)[:-1], marked(run.verdict)]


def metric_row(task: str, one: Difference) -> list[str]:
    """One metric: name, base, head, difference, interval, p-value, verdict."""
    known = score(task, one.metric)
    difference, interval, p = "n/a", "", ""
    if one.difference is not None and one.verdict != comparison.NOT_COMPARABLE:
        difference = signed(one.difference)
    if one.low is not None and one.high is not None:
        interval = f"[{signed(one.low)}, {signed(one.high)}]"
    if one.p_value is not None and one.p_adjusted is not None:
        p = f"{one.p_adjusted:.3f}"
    name = f"{known.label} {known.arrow}".strip()
    return [name, printed(one.base), printed(one.head), difference, interval, p, marked(one.verdict)]


def marked(verdict: str) -> str:
    """A verdict behind its sign, so that colour is not all that tells them apart."""
    return f"{MARKS.get(verdict, '·')} {verdict}"


def change_rows(changes: Sequence[Change]) -> list[list[str]]:
    """What changed, and its value on both sides."""
    return [[change.what, value(change.base), value(change.head)] for change in changes]


def value(one: Any) -> str:
    """A value of params.yaml or of a protocol as its reader wrote it."""
    return "none" if one is None else str(one).lower() if isinstance(one, bool) else str(one)


def reasons(run: RunComparison) -> list[str]:
    """What could have caused a difference, in sentences; empty where nothing differs."""
    found = []
    if run.code:
        found.append(f"code: {', '.join(run.code)}")
    if run.data:
        found.append(f"data from: {', '.join(run.data)}")
    return found


def seed_rows(run: RunComparison) -> list[list[str]]:
    """Mean and deviation over the seeds of both sides, for the metrics that have them on one at least."""
    sides = [arm.seeds if arm else {} for arm in (run.base, run.head)]
    names = dict.fromkeys(name for side in sides for name in side)
    return [[score(run.task, name).label, *(_spread(side.get(name)) for side in sides)] for name in names]


def _spread(one: SeedSpread | None) -> str:
    return f"{printed(one.mean)} ± {printed(one.std)} ({one.num})" if one else "n/a"


def unchanged(comparison: Comparison) -> list[str]:
    """One sentence each of the runs of which nothing needs to be told."""
    quiet = [run for run in comparison.runs if run.is_unchanged]
    touched = [run.title for run in quiet if run.code or run.data]
    found = []
    if rest := [run.title for run in quiet if not (run.code or run.data)]:
        found.append(f"Nothing changed in: {', '.join(rest)}.")
    if touched:
        causes = dict.fromkeys(cause for run in quiet for cause in (*run.code, *run.data))
        found.append(f"Identical, though {', '.join(causes)} changed: {', '.join(touched)}.")
    return found


def footnote(comparison: Comparison) -> str:
    """How the verdicts came about."""
    return (
        f"Intervals: {comparison.level:.0%}, paired bootstrap over the images that both sides were judged on, "
        f"{comparison.num_resamples} resamples. p: paired permutation test, Holm's correction over the metrics of a "
        f"run. A verdict of better or worse: p at most {1 - comparison.level:.2g}. Runs whose protocols differ are not "
        "subtracted."
    )
