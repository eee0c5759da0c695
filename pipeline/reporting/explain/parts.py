"""What an explanation is made of, and means that leave out what is undefined."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dialect(NamedTuple):
    """Another rule, and its value on the same predictions; None where it is undefined."""

    rule: str
    value: float | None


class Explanation(NamedTuple):
    """What is known beyond metrics.json.

    Attributes:
        lines: how the number came about.
        dialects: what others would say.
        missing: what could not be told and why, or nothing.
    """

    lines: list[str]
    dialects: list[Dialect]
    missing: str = ""


def shown(value: float | None) -> str:
    """A number with four decimals."""
    return "undefined" if value is None else f"{value:.4f}"


def ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Parts by wholes, NaN where there is no whole."""
    return np.divide(parts, wholes, out=np.full(np.shape(parts), np.nan), where=wholes > 0)


def mean(values: np.ndarray) -> float | None:
    """Of what is defined; None where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def row_means(values: np.ndarray) -> np.ndarray:
    """The mean of what is defined in each row; NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(1), defined.sum(1))


def weighted(values: np.ndarray, weights: np.ndarray) -> float | None:
    """The mean by weight, the undefined counting 0; None without weight."""
    total = weights.sum()
    return float((np.nan_to_num(values) * weights).sum() / total) if total else None
