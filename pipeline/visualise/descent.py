"""The way of gradient descent over the surface of its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.errors import ParamsError
from pipeline.params import Params, Visualisation
from pipeline.training import checkpoint as checkpoints
from pipeline.visualise import draw

DRAWS = True
INK, BLUE, ORANGE = "#1f2933", "#2f6fb0", "#e0762f"
POINTS = 121
"""Places along each side at which the surface is computed."""


def loss_surface(params: Params, entry: Visualisation, folder: Path) -> tuple[str, str]:
    """The mean squared error over slope and intercept as a map of heights, the path on it, and the error by step.

    Args:
        params: of the project.
        entry: `inputs` names the checkpoint of a `regression/linear` on one feature.
        folder: where `loss_surface.png` is written.

    Raises:
        ParamsError: the run is no linear regression, or has more features than one.
    """
    checkpoint = checkpoints.load(paths.inputs(entry.inputs))
    arrays, name = checkpoint.arrays, entry.inputs.partition("/")[2]
    if checkpoint.model != "regression/linear" or len(arrays["weight"]) != 1:
        raise ParamsError(
            f"{paths.PARAMS} {entry.inputs}: the surface of slope and intercept is that of a regression/linear on one "
            f"feature, not of {checkpoint.model}; fix: name a run with one of `columns`"
        )
    names = checkpoint.info.feature_names
    feature = names[int(arrays["columns"][0])] if names else "the feature"
    scaled = float(arrays["mean"][0]) != 0 or float(arrays["scale"][0]) != 1
    _draw(folder / "loss_surface.png", arrays, f"slope of {feature}{', scaled' if scaled else ''}")
    steps, (slope, intercept) = int(arrays["steps"][-1]), arrays["path"][-1].tolist()
    return (
        f"Gradient descent of {name}",
        f"Mean squared error by slope and intercept, and the path of {steps} steps from 0 to slope {slope:.4g} and "
        f"intercept {intercept:.4g}; the star is the bottom by the normal equations. "
        + ("The feature has zero mean and unit variance." if scaled else "The feature is as it was measured."),
    )


def errors_at(arrays: dict[str, np.ndarray], places: np.ndarray) -> np.ndarray:
    """Mean squared error and penalty [...] at slopes and intercepts [..., 2]."""
    gram = arrays["gram"] + np.diag([float(arrays["l2"]), 0.0])
    quadratic = np.einsum("...i,ij,...j->...", places, gram, places)
    return quadratic - 2 * places @ arrays["cross"] + arrays["square"]


def bottom_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """[2], the slope and intercept of the least error."""
    return np.linalg.lstsq(arrays["gram"] + np.diag([float(arrays["l2"]), 0.0]), arrays["cross"], rcond=None)[0]


def _draw(path: Path, arrays: dict[str, np.ndarray], slope_label: str) -> None:
    bottom, way = bottom_of(arrays), arrays["path"]
    centre, reach = bottom, np.maximum(np.abs(way - bottom).max(0) * 1.2, 1e-9)
    slopes, intercepts = (np.linspace(c - r, c + r, POINTS) for c, r in zip(centre, reach, strict=True))
    heights = errors_at(arrays, np.stack(np.meshgrid(slopes, intercepts), -1))
    least = float(errors_at(arrays, bottom))
    # heights rise with the square of the distance: even steps of its root are even rings
    levels = least + np.linspace(0, np.sqrt(max(float(heights.max()) - least, 1e-12)), 16) ** 2
    with draw.figure(path, (9.6, 4.2), dpi=110) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        left.contourf(slopes, intercepts, heights, levels=levels, cmap="Blues_r")
        left.contour(slopes, intercepts, heights, levels=levels, colors="white", linewidths=0.6)
        left.plot(way[:, 0], way[:, 1], color=ORANGE, linewidth=1.4, marker="o", markersize=3.2)
        left.plot(*way[0], marker="o", color=INK, markersize=7, markeredgecolor="white")
        left.plot(*bottom, marker="*", color="white", markersize=15, markeredgecolor=INK)
        left.set(xlabel=slope_label, ylabel="intercept")
        right.plot(arrays["steps"], errors_at(arrays, way), color=BLUE, linewidth=1.6)
        right.axhline(least, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        right.set(xlabel="step", ylabel="mean squared error", yscale="log")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)


METHODS: dict[str, Any] = {"loss_surface": loss_surface}
