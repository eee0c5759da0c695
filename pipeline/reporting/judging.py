"""Whether two reports can be held against each other, and what chance leaves of the difference of their figures."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline import metrics
from pipeline.metrics import bootstrap, comparison
from pipeline.metrics.comparison import Difference

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


def differences(
    base: Judged,
    head: Judged,
    task: str,
    names: Iterable[str],
    *,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
) -> list[Difference]:
    """The verdicts on metrics that both sides have.

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
    paired = task != "generative"
    is_grouped = paired and "group" in head.table.column_names
    family = importlib.import_module(f"pipeline.metrics.{task}")
    return comparison.compare(
        base.table.select(columns),
        head.table.select(columns),
        figures,
        {name: metric for name in figures if (metric := metrics.lookup(task, name)) is not None},
        family.resampled,
        paired=paired,
        groups=head.table.column("group").to_pylist() if is_grouped else None,
        num_resamples=num_resamples,
    )
