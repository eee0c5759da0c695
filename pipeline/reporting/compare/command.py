"""`pipeline compare`: reads two sides, writes what was asked for, and says whether the gates hold."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline import params, paths
from pipeline.errors import ParamsError
from pipeline.metrics.comparison import IDENTICAL, Difference
from pipeline.progress import progress
from pipeline.reporting import compare as comparing
from pipeline.reporting.compare import Comparison, RunComparison, flips, gates, markdown, page, terminal
from pipeline.reporting.compare.revisions import WORKSPACE, resolve

GATE_FAILED = 3


def run(
    base: str,
    head: str | None = None,
    *,
    runs: tuple[str, str] | None = None,
    num_resamples: int = 1000,
    md: Path | None = None,
    html: Path | None = None,
    as_json: Path | None = None,
    link: str | None = None,
) -> int:
    """Compares and reports.

    Args:
        base, head: revisions, experiments or `workspace`, which is the head where None is given.
        runs: two runs of the base revision, in place of the head; gates are between two states, so none is judged.
        num_resamples: of the bootstrap and of the permutation test.
        md, html, as_json: files to write, or None.
        link: address of a file with {commit} and {path}, for pictures in Markdown.

    Returns:
        The exit code: 3 where a gate fails.

    Raises:
        ParamsError: options that do not fit each other.
        ParamsError, PipelineError: a side cannot be read.
    """
    if link is not None and not {"{commit}", "{path}"} <= {f"{{{part}}}" for part in _fields(link)}:
        raise ParamsError(f"--link {link!r}: must hold {{commit}} and {{path}}; fix: add them")
    if runs is not None and head is not None:
        raise ParamsError(f"HEAD {head!r} and --runs: both runs are of BASE ({base!r}); fix: leave one of them out")
    limits = params.load().compare.gates if paths.PARAMS.is_file() else {}
    if runs is not None:
        found = comparing.compare_runs(resolve(base), *runs, num_resamples=num_resamples)
        outcomes = []
    else:
        found = comparing.compare(resolve(base), resolve(head or WORKSPACE), num_resamples=num_resamples)
        outcomes = gates.judge(found, limits)
    terminal.show(found, outcomes)
    if runs is not None and limits:
        print("no gate was judged: they are between two states, and --runs compares runs of one", file=sys.stderr)
    if md is not None:
        _write(md, markdown.render(found, outcomes, link))
    if html is not None:
        with tempfile.TemporaryDirectory() as scratch:
            listed = [run for run in found.runs if run.verdict not in (IDENTICAL, "new", "gone")]
            turned = {run.title: flips.sheet(run, Path(scratch)) for run in progress(listed, "pictures")}
        _write(html, page.render(found, outcomes, turned))
    if as_json is not None:
        paths.write_json(as_json, content(found, outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else GATE_FAILED


def content(comparison: Comparison, outcomes: list[gates.Outcome]) -> dict[str, Any]:
    """The comparison as JSON: per run what changed, every metric and its verdict."""
    return {
        "base": comparison.base,
        "head": comparison.head,
        "level": comparison.level,
        "num_resamples": comparison.num_resamples,
        "runs": [_run(run) for run in comparison.runs],
        "gates": [dataclasses.asdict(outcome) for outcome in outcomes],
    }


def _run(run: RunComparison) -> dict[str, Any]:
    return {
        "run": run.title,
        "task": run.task,
        "verdict": run.verdict,
        "params": [dataclasses.asdict(change) for change in run.params],
        "code": run.code,
        "data": run.data,
        "unequal_protocol": [dataclasses.asdict(change) for change in run.unequal],
        "metrics": [_metric(one) for one in run.differences],
    }


def _metric(one: Difference) -> dict[str, Any]:
    names = ("metric", "base", "head", "difference", "low", "high", "p_value", "p_adjusted", "verdict")
    return {name: getattr(one, name) for name in names}


def _fields(template: str) -> list[str]:
    from string import Formatter

    try:
        return [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError:
        return []


def _write(path: Path, text: str) -> None:
    with paths.written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


__all__ = ["GATE_FAILED", "WORKSPACE", "content", "run"]
