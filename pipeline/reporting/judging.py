"""Whether two reports can be held against each other, and what chance leaves of the difference of their figures."""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline import metrics
from pipeline.metrics import bootstrap, comparison
from pipeline.metrics.comparison import Difference, Resampled

Figures = tuple[float | None, float | None]
"""Of base and head."""

CHOICES = ("score_threshold", "suppression", "scores", "ensemble", "test_time_augmentation")
"""Lines of a protocol that say what a run does, as its params do: what is compared, not how it is measured."""


@dataclass(frozen=True)
class Change:
    """Something that both sides have and that differs; None where one side lacks it."""

    what: str
    base: Any
    head: Any


class Judged(Protocol):
    """A report: the scalars of its metrics.json, and per_image.parquet or None where there is none."""

    @property
    def figures(self) -> Mapping[str, float | None]:
        """By name."""

    @property
    def table(self) -> pa.Table | None:
        """A row for each image."""


def changes(base: Mapping[str, Any], head: Mapping[str, Any]) -> list[Change]:
    """What differs, in the order of the base, then what only the head has."""
    keys = dict.fromkeys([*base, *head])
    return [Change(key, base.get(key), head.get(key)) for key in keys if base.get(key) != head.get(key)]


def unequal_rules(base: Mapping[str, Any], head: Mapping[str, Any], figures: Collection[str]) -> list[Change]:
    """Lines of two protocols that differ and so forbid to subtract; rules that one of `figures` bears are its own."""
    rules = [{what: value for what, value in side.items() if what not in CHOICES} for side in (base, head)]
    return [change for change in changes(*rules) if change.what not in figures]


def unequal_classes(base: Sequence[Mapping[str, Any]], head: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Names of classes that one side alone has, or all where their order differs, from the rows of `per_class`."""
    ours, others = ([str(row.get("class")) for row in rows] for rows in (base, head))
    if ours == others or not (ours and others):
        return []
    gone, new = [name for name in ours if name not in others], [name for name in others if name not in ours]
    if not gone and not new:
        gone, new = ours, others
    return [Change("classes", ", ".join(gone) or None, ", ".join(new) or None)]


def differences(
    base: Judged,
    head: Judged,
    task: str,
    names: Iterable[str],
    *,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
) -> list[Difference]:
    """The verdicts on metrics that both sides have.

    A metric that a side's own table does not give was computed by other code than today's: it is not comparable.

    Args:
        base, head: judged on the same images by the same rules.
        task: whose metrics they are.
        names: of the metrics; Holm's correction is over all of them that can be tested.
        num_resamples: of the bootstrap and of the permutation test.
    """
    figures = {name: (base.figures.get(name), head.figures.get(name)) for name in names}
    if base.table is None or head.table is None:
        return [
            Difference(name, a, b, None, None, None, None, comparison.NOT_TESTED) for name, (a, b) in figures.items()
        ]
    columns = [name for name in base.table.column_names if name in head.table.column_names]
    first, second = base.table.select(columns), head.table.select(columns)
    paired = task != "generative"
    is_grouped = paired and "group" in head.table.column_names
    resampled = importlib.import_module(f"pipeline.metrics.{task}").resampled
    held = _held(figures, first, second, resampled)
    tested = comparison.compare(
        first,
        second,
        held,
        {name: metric for name in held if (metric := metrics.lookup(task, name)) is not None},
        resampled,
        paired=paired,
        groups=head.table.column("group").to_pylist() if is_grouped else None,
        num_resamples=num_resamples,
    )
    judged = {one.metric: one for one in tested}
    return [
        judged.get(name) or Difference(name, a, b, None, None, None, None, comparison.NOT_COMPARABLE)
        for name, (a, b) in figures.items()
    ]


def _held(figures: Mapping[str, Figures], base: pa.Table, head: pa.Table, resampled: Resampled) -> dict[str, Figures]:
    """The figures that are those of their tables, to the six digits of metrics.json, or undefined."""
    if base.equals(head) and all(a == b for a, b in figures.values()):
        return dict(figures)
    try:
        given = [bootstrap.once(resampled, table) for table in (base, head.cast(base.schema))]
    except (KeyError, pa.ArrowException):  # a table of other code: without a column, or of another type
        return {}

    def agree(figure: float | None, of_table: float | None) -> bool:
        return figure is None or of_table is None or math.isclose(figure, of_table, rel_tol=1e-5, abs_tol=1e-6)

    return {
        name: both
        for name, both in figures.items()
        if both[0] == both[1] or all(agree(a, of.get(name)) for a, of in zip(both, given, strict=True))
    }
