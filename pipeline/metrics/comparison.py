"""Is one run better than another? Judged on the same images, metric by metric, from per-image tables alone.

The interval of a difference is a paired bootstrap: both runs are computed on the same resamples of the images. The
p-value is that of a paired permutation test (Fisher 1935; Noreen 1989): were both runs of equal quality, each image's
outcomes could as well be swapped between them. It holds its level for every metric, however the metric is made of
its images; a bootstrap's p-value would do so for many images only. Samples of a generator are not paired: they are
resampled apart, and the permutation deals all samples out anew, each kind of row (column `kind`) within itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, bootstrap

Resampled = Callable[[pa.Table, np.ndarray], dict[str, np.ndarray]]

BETTER, WORSE, DIFFERS = "better", "worse", "differs"
IDENTICAL, NO_EVIDENCE, NOT_TESTED = "identical", "no evidence", "not tested"
NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class Difference:
    """One metric of two runs.

    Attributes:
        metric: its name in metrics.json.
        base, head: both values; None where undefined.
        low, high: interval of head - base; None where it cannot be known.
        p_value: how often chance alone would differ as much, 0..1.
        p_adjusted: the same after Holm's correction over the metrics of the comparison.
        verdict: one of the constants of this module.
        drawn: [R] differences over resampled images, for intervals of another level; empty where there are none.
    """

    metric: str
    base: float | None
    head: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    verdict: str
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    @property
    def difference(self) -> float | None:
        """The head less the base; None where one is undefined."""
        return None if self.base is None or self.head is None else self.head - self.base


def compare(
    base: pa.Table,
    head: pa.Table,
    figures: Mapping[str, tuple[float | None, float | None]],
    directions: Mapping[str, Metric],
    resampled: Resampled,
    *,
    paired: bool = True,
    groups: Sequence[str | None] | None = None,
    level: float = bootstrap.LEVEL,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
    seed: int = 0,
) -> list[Difference]:
    """Judges each metric of two runs.

    Args:
        base, head: per-image tables with the same columns; where `paired`, row i of both is the same image.
        figures: base and head value of each metric, as metrics.json has them.
        directions: the family's METRICS.
        resampled: the family's function of a table and [R, N] weights.
        paired: whether rows are the same images.
        groups: what is drawn and swapped as a whole, or None.
        level: of the intervals and, as 1 - level, of the false alarms of one comparison.
        num_resamples: of the bootstrap, and permutations of the test.
        seed: of both.

    Raises:
        ValueError: paired tables of different length.
    """
    if paired and len(base) != len(head):
        raise ValueError(f"{len(base)} and {len(head)} images cannot be paired")
    if not figures:
        return []
    head = head.select(base.column_names).cast(base.schema)
    if base.equals(head) and all(a == b for a, b in figures.values()):
        return [Difference(name, a, b, 0.0, 0.0, 1.0, 1.0, IDENTICAL, np.zeros(1)) for name, (a, b) in figures.items()]
    drawn = _bootstrap(base, head, resampled, paired, groups, num_resamples, seed)
    chance = _permutations(base, head, resampled, paired, groups, num_resamples, seed)
    p_values = {name: _p_value(a, b, chance.get(name)) for name, (a, b) in figures.items()}
    adjusted = holm({name: p for name, p in p_values.items() if p is not None})
    found = []
    for name, (a, b) in figures.items():
        values = drawn[name] if name in drawn and p_values[name] is not None else np.zeros(0)
        low, high = bootstrap.interval(values, level) or (None, None)
        verdict = _verdict(a, b, adjusted.get(name), directions.get(name), level)
        found.append(Difference(name, a, b, low, high, p_values[name], adjusted.get(name), verdict, values))
    return found


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979): the chance of one false alarm among all stays below the level.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted, most = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        most = max(most, min(1.0, p_values[name] * (len(p_values) - rank)))
        adjusted[name] = most
    return {name: adjusted[name] for name in p_values}


def _bootstrap(
    base: pa.Table,
    head: pa.Table,
    resampled: Resampled,
    paired: bool,
    groups: Sequence[str | None] | None,
    num_resamples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """[R] differences head - base of each metric over resampled images."""
    one = bootstrap.weights(len(base), num_resamples=num_resamples, seed=seed, groups=groups)
    other = one if paired else bootstrap.weights(len(head), num_resamples=num_resamples, seed=seed + 1, groups=None)
    of_base, of_head = resampled(base, one), resampled(head, other)
    return {name: of_head[name] - of_base[name] for name in of_base if name in of_head}


def _permutations(
    base: pa.Table,
    head: pa.Table,
    resampled: Resampled,
    paired: bool,
    groups: Sequence[str | None] | None,
    num_permutations: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """[R] differences of each metric between two halves of all rows that chance has dealt out."""
    both = pa.concat_tables([base, head])
    rng = np.random.default_rng([seed, 1])
    if paired:
        members = bootstrap.group_numbers(groups) if groups is not None else np.arange(len(base))
        swapped = rng.integers(0, 2, (num_permutations, int(members.max(initial=-1)) + 1), np.uint16)[:, members]
        second = np.stack([swapped, 1 - swapped], axis=2).reshape(num_permutations, len(both))
        # both rows of an image side by side: where scores are equal, rankings keep the order of the images
        both = both.take(pa.array(np.arange(len(both)).reshape(2, -1).T.ravel()))
    else:
        second = np.zeros((num_permutations, len(both)), np.uint16)
        kinds = np.array(both.column("kind").to_pylist()) if "kind" in both.column_names else np.zeros(len(both))
        for kind in np.unique(kinds):  # a sample stays a sample, a reference image one of the reference
            members = np.flatnonzero(kinds == kind)
            num_of_head = int((members >= len(base)).sum())
            for row in second:
                row[rng.permutation(members)[:num_of_head]] = 1
    of_first, of_second = resampled(both, 1 - second), resampled(both, second)
    return {name: of_second[name] - of_first[name] for name in of_first}


def _p_value(base: float | None, head: float | None, chance: np.ndarray | None) -> float | None:
    """The share of permutations, the one that happened among them, that differ at least as much."""
    if base is None or head is None or chance is None or not np.isfinite(chance).any():
        return None
    chance = chance[np.isfinite(chance)]
    # metrics.json holds six digits, so equal differences may differ by a few of the seventh
    extreme = np.abs(chance) >= abs(head - base) - 2e-6 * max(abs(head), abs(base))
    return float((1 + extreme.sum()) / (1 + len(chance)))


def _verdict(
    base: float | None, head: float | None, p_adjusted: float | None, metric: Metric | None, level: float
) -> str:
    if p_adjusted is None or base is None or head is None:
        return NOT_TESTED
    if p_adjusted > 1 - level or base == head:
        return NO_EVIDENCE
    if metric is None or metric.higher_is_better is None:
        return DIFFERS
    return BETTER if (head > base) == metric.higher_is_better else WORSE
