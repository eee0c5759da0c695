"""Plots of results as small PNG files: one look, the same bytes each time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.metrics.classification import Calibration
from pipeline.paths import written_whole

INK, QUIET, LINE = "#1f2933", "#6b7785", "#d9dee3"
BLUE, ORANGE, GREEN, GREY = "#2f6fb0", "#e0762f", "#2e8b57", "#aab4be"
MAX_BYTES = 200_000
MAX_NUMBERED = 30
"""Classes up to which a confusion matrix has numbers in its cells."""
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same letters on every machine
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "grid.color": "#edf0f3",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "savefig.dpi": 120,
}


def confusion_matrix(
    path: Path, matrix: np.ndarray, classes: Sequence[str], *, columns: Sequence[str] = (), of: str = "images"
) -> None:
    """Truth by prediction; the shade is the share of a true class, a number in a cell its count or percentage.

    Args:
        path: the PNG to write.
        matrix: [K, K'] counts, rows true.
        classes: K names.
        columns: K' names, where they are not those of the rows.
        of: what is counted.
    """
    columns = list(columns) or list(classes)
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    cell = 0.46 if len(classes) <= MAX_NUMBERED else 0.19
    side = max(4.0, cell * len(classes) + 2.2)
    with _axes(path, (side + cell * (len(columns) - len(classes)) + 0.4, side)) as axes:
        axes.imshow(shares, cmap=_blues(), vmin=0, vmax=1, aspect="equal")
        if len(classes) <= MAX_NUMBERED:
            percent = bool(matrix.max(initial=0) > 999)
            for (row, column), count in np.ndenumerate(matrix):
                share = shares[row, column]
                if not count or (percent and share < 0.005):
                    continue
                colour = "white" if share > 0.55 else INK if row == column or share > 0.04 else QUIET
                text = f"{share * 100:.0f}" if percent else str(int(count))
                axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=colour)
            unit = "% of the true class" if percent else f"number of {of}"
        else:
            unit = "shade: share of the true class"
            axes.tick_params(labelsize=7)
        axes.set_xticks(range(len(columns)), plain(columns), rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), plain(classes))
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(f"predicted   ({unit})")
        axes.set_ylabel("true")


def reliability(
    path: Path,
    calibration: Calibration,
    *,
    of: str = "images",
    confidence: str = "confidence: the highest probability of an image",
) -> None:
    """Accuracy by confidence, with the number of images of each bin below; on the diagonal, confidence can be trusted.

    Args:
        path: the PNG to write.
        calibration: of `metrics.classification.calibration`.
        of: what is counted.
        confidence: what confidence is.
    """
    num_bins = len(calibration.counts)
    left = np.arange(num_bins) / num_bins
    width, filled = 1 / num_bins, calibration.counts > 0
    with figure_at(path, (5.2, 5.4)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        upper.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        joined = {"align": "edge", "edgecolor": "white", "linewidth": 1.5}
        upper.bar(left[filled], calibration.accuracy[filled], width, color=BLUE, **joined)
        for start, mean, accuracy in zip(
            left[filled], calibration.confidence[filled], calibration.accuracy[filled], strict=True
        ):
            upper.plot([start + 0.1 * width, start + 0.9 * width], [mean, mean], color=ORANGE, linewidth=2)
            upper.plot([start + width / 2] * 2, [mean, accuracy], color=ORANGE, linewidth=1)
        upper.plot([], [], color=BLUE, linewidth=6, label="accuracy")
        upper.plot([], [], color=ORANGE, linewidth=2, label="mean confidence")
        upper.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderaxespad=0.2)
        ece = "" if calibration.ece is None else f"ECE {calibration.ece:.3f}"
        upper.text(1, 1.035, ece, transform=upper.transAxes, ha="right", fontweight="bold")
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        upper.grid(axis="y")
        lower.bar(left, calibration.counts, width, color=GREY, **joined)
        lower.set(xlabel=confidence, ylabel=of)
        lower.grid(axis="y")


def precision_recall(path: Path, curves: np.ndarray, classes: Sequence[str], average_precision: Sequence) -> None:
    """Precision by recall at IoU .5: the mean as a strong line, the classes as fine ones, best named first.

    Args:
        path: the PNG to write.
        curves: [K, 101], NaN for a class without truth.
        classes: K names.
        average_precision: K numbers; None for a class without truth.
    """
    levels = np.linspace(0, 1, curves.shape[1])
    known = [index for index in range(len(classes)) if average_precision[index] is not None]
    known.sort(key=lambda index: -average_precision[index])
    names = plain(classes)
    with _axes(path, (7.2, 4.6)) as axes:
        colours = matplotlib.colormaps["turbo"](np.linspace(0.06, 0.94, max(len(known), 1)))
        for colour, index in zip(colours, known, strict=False):
            label = f"{names[index]}  {average_precision[index]:.2f}" if len(known) <= 24 else None
            axes.plot(levels, curves[index], color=colour, linewidth=1.1, alpha=0.8, label=label)
        if known:
            mean = float(np.mean([average_precision[index] for index in known]))
            axes.plot(levels, curves[known].mean(0), color=INK, linewidth=2.8, label=f"mean  {mean:.2f}", zorder=3)
            axes.legend(
                loc="upper left", bbox_to_anchor=(1.01, 1.02), title="AP at IoU .5", alignment="left", fontsize=9
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.grid()


def bars(path: Path, values: Sequence, names: Sequence[str], *, label: str, colours: Sequence[str] = ()) -> None:
    """One horizontal bar for each name, the largest on top, with their mean as a line; `n/a` where a value is None.

    Args:
        path: the PNG to write.
        values: K numbers in 0..1, or None.
        names: K names.
        label: what the numbers are.
        colours: K colours; one blue for all if empty.
    """
    order = sorted(range(len(names)), key=lambda i: (values[i] is None, -(values[i] or 0), i))
    lengths = [values[i] or 0 for i in order]
    with _axes(path, (6.4, 0.31 * max(len(names), 3) + 1.0)) as axes:
        places = range(len(names))
        axes.barh(places, lengths, height=0.72, color=[colours[i] for i in order] if colours else BLUE)
        for place, index in zip(places, order, strict=True):
            text = "n/a" if values[index] is None else f"{values[index]:.2f}"
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # the line of the mean ends before it
            axes.text((values[index] or 0) + 0.014, place, text, va="center", fontsize=9, color=INK, bbox=paper)
        defined = [value for value in values if value is not None]
        if defined:
            mean = float(np.mean(defined))
            axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            axes.text(mean, -0.72, f"mean {mean:.2f}", ha="center", va="bottom", fontsize=9, fontweight="bold")
        axes.set_yticks(places, plain([names[i] for i in order]))
        axes.set(xlim=(0, 1.08), ylim=(len(names) - 0.4, -0.6), xlabel=label)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")


def error_types(path: Path, names: Sequence[str], gains: Sequence, counts: Sequence) -> None:
    """One horizontal bar for each kind of error: the AP to be gained by mending it, and how many there are.

    Args:
        path: the PNG to write.
        names: of the kinds.
        gains: AP to be gained in 0..1, or None.
        counts: how many errors of the kind there are, or None where the kind sums up others.
    """
    top = max([gain or 0 for gain in gains] + [0.01])
    with _axes(path, (6.4, 0.34 * len(names) + 1.0)) as axes:
        places = range(len(names))
        colours = [BLUE if count is not None else GREY for count in counts]
        axes.barh(places, [gain or 0 for gain in gains], height=0.7, color=colours)
        for place, gain, count in zip(places, gains, counts, strict=True):
            text = "n/a" if gain is None else f"{gain:+.3f}"
            axes.text((gain or 0) + 0.015 * top, place, text, va="center", fontsize=9, fontweight="bold")
            if count is not None:
                axes.text(1.24 * top, place, f"{count:,}", va="center", ha="right", fontsize=9, color=QUIET)
        axes.text(1.24 * top, -0.75, "errors", va="bottom", ha="right", fontsize=9, color=QUIET)
        axes.set_yticks(places, names)
        axes.set(xlim=(0, 1.25 * top), ylim=(len(names) - 0.4, -0.6), xlabel="AP to be gained by mending these alone")
        axes.tick_params(axis="y", labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x")


def agreement(path: Path, values: np.ndarray, targets: np.ndarray) -> None:
    """Each image as a point, its true number across and the predicted one up; on the diagonal both agree.

    Args:
        path: the PNG to write.
        values: [N], predicted.
        targets: [N], true.
    """
    both = np.concatenate([values, targets])
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.5
    ends = (low - margin, high + margin)
    with _axes(path, (5.2, 5.0)) as axes:
        axes.plot(ends, ends, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        axes.scatter(targets, values, s=22, color=BLUE, alpha=0.65, linewidths=0)
        if len(targets):
            axes.axhline(float(targets.mean()), color=ORANGE, linewidth=1.2, label="the mean of the true numbers")
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), borderaxespad=0.2)
        axes.set(xlim=ends, ylim=ends, xlabel="true", ylabel="predicted", aspect="equal")
        axes.grid()


def residuals(path: Path, values: np.ndarray, targets: np.ndarray) -> None:
    """Errors by predicted number, and how often each size occurs; a pattern is what the model has not learnt.

    Args:
        path: the PNG to write.
        values: [N], predicted.
        targets: [N], true.
    """
    errors = values - targets
    with figure_at(path, (7.2, 3.6)) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
        left.axhline(0, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        left.scatter(values, errors, s=22, color=BLUE, alpha=0.65, linewidths=0)
        left.set(xlabel="predicted", ylabel="predicted - true")
        left.grid()
        right.axhline(0, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        right.hist(errors, bins=20, orientation="horizontal", color=GREY, edgecolor="white")
        right.set(xlabel="images")
        right.grid(axis="x")


def distances(path: Path, panels: Sequence[tuple[str, Sequence[tuple[str, float | None]]]]) -> None:
    """For each kind of distance, a bar for the samples between those of what they are compared with.

    Args:
        path: the PNG to write.
        panels: a title each, and names with their distances; the first name stands out.
    """
    with figure_at(path, (7.6, 2.5)) as figure:
        for axes, (title, pairs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            values = [value or 0 for _, value in pairs]
            top = max(max(values), 1e-9)
            axes.barh(range(len(pairs)), np.maximum(values, 0), height=0.62, color=[BLUE] + [GREY] * (len(pairs) - 1))
            for place, (_, value) in enumerate(pairs):
                text = "n/a" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
                weight = "bold" if place == 0 else "normal"
                axes.text(max(value or 0, 0) + 0.02 * top, place, text, va="center", fontsize=9, fontweight=weight)
            axes.set_yticks(range(len(pairs)), [name for name, _ in pairs])
            axes.set(xlim=(0, 1.2 * top), ylim=(len(pairs) - 0.4, -0.6), title=title, xlabel="lower is better")
            axes.tick_params(axis="y", labelcolor=INK)
            axes.spines["left"].set_visible(False)
            axes.locator_params(axis="x", nbins=5)
            axes.grid(axis="x")


def history(
    path: Path,
    values: Sequence[float | None],
    intervals: Sequence[tuple[float, float] | None],
    commits: Sequence[str],
    *,
    label: str,
) -> None:
    """A metric over commits, the oldest left, with intervals where they are known.

    Args:
        path: the PNG to write.
        values: one per commit, None where undefined.
        intervals: low and high end of each, or None.
        commits: what is written below each.
        label: of the values.
    """
    with _axes(path, (max(5.0, 0.5 * len(values) + 1.5), 3.6)) as axes:
        known = [(index, value) for index, value in enumerate(values) if value is not None]
        axes.plot([index for index, _ in known], [value for _, value in known], color=BLUE, marker="o", markersize=5)
        for index, ends in enumerate(intervals):
            if ends is not None:
                axes.vlines(index, *ends, color=BLUE, alpha=0.45, linewidth=3)
        axes.set_xticks(range(len(commits)), commits, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_ylabel(label)
        axes.grid(axis="y")


def shaded_table(path: Path, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, label: str) -> None:
    """A table of figures in 0..1, each on a shade of its own; NaN is left blank.

    Args:
        path: the PNG to write.
        values: [R, C].
        rows, columns: R and C names.
        label: what the figures are.
    """
    with _axes(path, (0.62 * len(columns) + 2.6, 0.32 * len(rows) + 1.3)) as axes:
        axes.imshow(values, cmap=_blues(), vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > 0.55 else INK
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color=colour)
        axes.set_xticks(range(len(columns)), plain(columns))
        axes.set_yticks(range(len(rows)), plain(rows))
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(label)


def plain(names: Sequence[str]) -> list[str]:
    """Names that are drawn as they are, for matplotlib reads what stands between two dollars as a formula."""
    return [name.replace("$", r"\$") for name in names]


@contextmanager
def figure_at(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of a size in inches that is written to `path` at the end, in fewer dots where it is large."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what a matplotlibrc of the user says
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        for dpi in (120, 100, 80, 60, 40):
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
            if buffer.tell() <= MAX_BYTES:
                break
        with written_whole(path) as temporary:
            temporary.write_bytes(buffer.getvalue())


@contextmanager
def _axes(path: Path, size: tuple[float, float]) -> Iterator[Axes]:
    with figure_at(path, size) as figure:
        yield figure.subplots()


def _blues() -> matplotlib.colors.Colormap:
    """White to the house's blue, so that an empty cell is paper."""
    return matplotlib.colors.LinearSegmentedColormap.from_list("house", ["#f6f8fa", "#9fc1e2", BLUE, "#1b4470"])
