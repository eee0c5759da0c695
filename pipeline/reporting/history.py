"""A metric of one run over the commits that lead here: which change moved it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.errors import ParamsError, did_you_mean
from pipeline.reporting.compare import MAPPINGS
from pipeline.reporting.compare.revisions import Revision, history, subject
from pipeline.reporting.scores import figures, kind, kind_of, printed, score


@dataclass(frozen=True)
class Point:
    """The metric at a commit that changed it.

    Attributes:
        revision: the commit.
        subject: the first line of its message.
        value: None where undefined.
        interval: low and high end, or None where metrics.json holds none.
    """

    revision: Revision
    subject: str
    value: float | None
    interval: tuple[float, float] | None


def read(metric: str, run: str, limit: int) -> tuple[str, list[Point]]:
    """The task of a run, and every commit of the last `limit` that changed its metric, the oldest first.

    Raises:
        ParamsError: no commit among them holds such a run or such a metric.
    """
    points: list[Point] = []
    task, seen_runs, seen_metrics = "", set[str](), set[str]()
    last: object = ()
    for revision in history(limit):
        for mapping, report in MAPPINGS.items():
            seen_runs.update(revision.names(report(run).parent))
            content = revision.metrics(report(run))
            if content is None:
                continue
            entry = (revision.params.get(mapping) or {}).get(run) or {}
            task = kind(kind_of(str(entry.get("model")))).task
            known = figures(content)
            seen_metrics.update(known)
            if metric not in known:
                continue
            ends = {name: (low, high) for name, low, high in content.get("intervals") or []}
            found = (known[metric], ends.get(metric))
            if found != last:
                points.append(Point(revision, subject(revision), *found))
            last = found
    if not points:
        if not seen_metrics:
            raise ParamsError(f"no commit of the last {limit} has a report of {run!r}; {did_you_mean(run, seen_runs)}")
        raise ParamsError(f"{run} has no metric {metric!r}; {did_you_mean(metric, seen_metrics)}")
    return task, points


def run(metric: str, name: str, *, limit: int, out: Path | None) -> None:
    """Prints the metric's history as a table and draws it where asked for.

    Args:
        metric: a name in metrics.json.
        name: a run or a generator.
        limit: number of commits to look back.
        out: a PNG to write, or None.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    task, points = read(metric, name, limit)
    known = score(task, metric)
    table = Table(title=f"{known.label} {known.arrow} of {name}".replace("  ", " "), box=None, pad_edge=False)
    for column in ("commit", "value", "interval", "subject"):
        table.add_column(column, justify="right" if column in ("value", "interval") else "left")
    for point in points:
        ends = f"{printed(point.interval[0])} to {printed(point.interval[1])}" if point.interval else ""
        row = (point.revision.name, printed(point.value), ends, point.subject)
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)
    if out is not None:
        from pipeline.reporting import plots

        with paths.written_whole(out) as temporary:
            plots.history(
                temporary,
                [point.value for point in points],
                [point.interval for point in points],
                [point.revision.name for point in points],
                label=f"{known.label} of {name}",
            )
