"""Pictures of a search, the metric over each option, over pairs of options and over trials; of a sweep over rates."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from pipeline.params import Choices, Range, Search
from pipeline.reporting import plots
from pipeline.reporting.plots import BLUE, GREY, INK, ORANGE, QUIET, figure_at

if TYPE_CHECKING:
    from pipeline.training.sanity import Sweep
    from pipeline.training.search import Trial

COLUMNS = 3


def draw(folder: Path, entry: Search, trials: Sequence[Trial], best: Trial) -> None:
    """Writes slices.png and history.png, and landscape.png where there are two options or more.

    Args:
        folder: that exists.
        entry: of `searches`.
        trials: all of them; those without a value are marked where they were tried.
        best: of them.
    """
    _slices(folder / "slices.png", entry, trials, best)
    _history(folder / "history.png", entry, trials, best)
    if len(entry.space) > 1:
        _landscape(folder / "landscape.png", entry, trials, best)


def learning_rates(path: Path, sweep: Sweep, rate: float) -> None:
    """The loss over rising learning rates, with the rate of the run and the one that is suggested.

    Args:
        path: the PNG to write.
        sweep: of `pipeline/training/sanity.py`.
        rate: of the run.
    """
    with figure_at(path, (6.4, 3.2)) as figure:
        axes = figure.subplots()
        axes.plot(sweep.rates, sweep.losses, color=BLUE, linewidth=2)
        axes.axvline(rate, color=INK, linewidth=1.2, label=f"the run's: {rate:g}")
        if sweep.suggested is not None:
            axes.axvline(sweep.suggested, color=ORANGE, linewidth=1.2, label=f"suggested: {sweep.suggested:g}")
        if sweep.limit is not None:
            axes.axvline(sweep.limit, color=QUIET, linewidth=1.2, linestyle=(0, (4, 3)), label="explodes")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, borderaxespad=0.2)
        axes.grid()


def _slices(path: Path, entry: Search, trials: Sequence[Trial], best: Trial) -> None:
    """The metric over each option alone."""
    num = len(entry.space)
    columns = min(num, COLUMNS)
    rows = -(-num // columns)
    with figure_at(path, (3.4 * columns + 0.6, 2.9 * rows)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes in grid[num:]:
            axes.set_axis_off()
        for index, (axes, key) in enumerate(zip(grid, entry.space, strict=False)):
            for state, style in _STYLES.items():
                some = [trial for trial in trials if trial.state == state and trial.value is not None]
                places = [_place(entry, key, trial) for trial in some]
                axes.plot(places, _values(some), linestyle="none", **style)
            axes.plot([_place(entry, key, best)], _values([best]), **_BEST)
            _scale(axes, entry, key, "x")
            axes.set_ylabel(entry.metric if index % columns == 0 else "")
            axes.grid(axis="y")


def _history(path: Path, entry: Search, trials: Sequence[Trial], best: Trial) -> None:
    """The metric of each trial and the best so far."""
    from pipeline.training.state import higher_is_better

    with figure_at(path, (6.4, 3.0)) as figure:
        axes = figure.subplots()
        for state, style in _STYLES.items():
            some = [trial for trial in trials if trial.state == state and trial.value is not None]
            numbers = [trial.number for trial in some]
            axes.plot(numbers, _values(some), linestyle="none", label=state if some else None, **style)
        complete = [trial for trial in trials if trial.state == "complete"]
        rising = np.maximum if higher_is_better(entry.metric) else np.minimum
        best_so_far = rising.accumulate(_values(complete))
        axes.step([trial.number for trial in complete], best_so_far, where="post", color=ORANGE, label="best so far")
        axes.plot([best.number], _values([best]), **_BEST)
        axes.set(xlabel="trial", ylabel=entry.metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, borderaxespad=0.2)
        axes.grid(axis="y")


def _landscape(path: Path, entry: Search, trials: Sequence[Trial], best: Trial) -> None:
    """The metric, as colour, over all pairs of options; what has no value is a cross."""
    pairs = list(itertools.combinations(entry.space, 2))
    columns = min(len(pairs), COLUMNS)
    rows = -(-len(pairs) // columns)
    valued = [trial for trial in trials if trial.value is not None]
    values = _values(valued)
    others = [trial for trial in trials if trial.value is None]
    with figure_at(path, (4.1 * columns + 0.8, 3.6 * rows)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(pairs) :]:
            axes.set_axis_off()
        for axes, (across, up) in zip(grid, pairs, strict=False):

            def places(some: Sequence[Trial], across: str = across, up: str = up) -> tuple[list[float], list[float]]:
                return [_place(entry, across, trial) for trial in some], [_place(entry, up, trial) for trial in some]

            shown = axes.scatter(*places(valued), c=values, cmap="viridis", s=90, edgecolors="white", linewidths=0.8)
            axes.scatter(*places(others), marker="x", color=QUIET, s=45, linewidths=1.2)
            axes.scatter(*places([best]), marker="*", s=240, facecolors="none", edgecolors=ORANGE, linewidths=1.8)
            _scale(axes, entry, across, "x")
            _scale(axes, entry, up, "y")
            axes.grid()
        figure.colorbar(shown, ax=list(grid), label=entry.metric, shrink=0.9)


def _values(trials: Sequence[Trial]) -> np.ndarray:
    """[N], the metric of trials that have it."""
    return np.array([trial.value for trial in trials], float)


def _place(entry: Search, key: str, trial: Trial) -> float:
    """Where a value stands on its axis: the number itself, or the index of the choice."""
    tried, value = entry.space[key], trial.values[key]
    if isinstance(tried, Range):
        return float(value)
    return float([json.dumps(choice) for choice in tried.choices].index(json.dumps(value)))


def _scale(axes: Axes, entry: Search, key: str, which: str) -> None:
    """Names an axis, in the logarithm where the key is searched so, with a tick for each choice."""
    tried = entry.space[key]
    side: Any = axes.xaxis if which == "x" else axes.yaxis
    side.set_label_text(key)
    side.label.set_color(INK)
    if isinstance(tried, Range) and tried.log:
        getattr(axes, f"set_{which}scale")("log")
        side.set_minor_formatter(NullFormatter())
    elif isinstance(tried, Choices):
        side.set_ticks(range(len(tried.choices)), plots.plain([_short(choice) for choice in tried.choices]))


def _short(choice: Any) -> str:
    text = choice if isinstance(choice, str) else json.dumps(choice, separators=(",", ":"))
    return text if len(text) <= 14 else f"{text[:13]}…"


_STYLES: dict[str, dict[str, Any]] = {
    "complete": {"color": BLUE, "marker": "o", "markersize": 5.5, "alpha": 0.85},
    "pruned": {"color": GREY, "marker": "o", "markersize": 5.5, "markerfacecolor": "none"},
}
_BEST: dict[str, Any] = {"color": ORANGE, "marker": "*", "markersize": 13, "linestyle": "none"}
