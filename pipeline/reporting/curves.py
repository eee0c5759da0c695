"""Line charts as inline SVG: no script, no font file, the same bytes for the same numbers.

Colours come from the page's CSS variables `--series-0` ... `--series-5`, so that they follow light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from pipeline.params import is_fitted

NUM_COLOURS = 6
WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 34, 38
LEGEND_ROW = 16
NO_QUANTITIES = ("epoch", "lr", "grad_norm")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
STYLE = (
    "svg{background:#fff;font:11.5px system-ui,sans-serif;--quiet:#66707a;"
    "--series-0:#2f6f8f;--series-1:#c8743c;--series-2:#4d8b57;--series-3:#8a63a8;--series-4:#a88a2e;--series-5:#c25a7a}"
    "text{fill:#66707a}.heading{fill:#1e2328;font-weight:600}polyline{fill:none;stroke-width:2}"
    ".grid{stroke:#e3e1dc}.key{stroke-width:2.5}"
)
"""What page.css gives a chart in light mode, for one that stands in a file of its own."""

Series = Mapping[str, Sequence[tuple[float, float]]]


def nice_step(span: float, num: int) -> float:
    """The step from 1, 2, 5 times a power of ten that cuts `span` into at most `num` parts.

    >>> nice_step(1.0, 5), nice_step(7.0, 4), nice_step(60, 6)
    (0.2, 2.0, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(span / num))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0, 20.0) if span / (factor * power) <= num * (1 + 1e-9))


def ticks(low: float, high: float, num: int, whole: bool = False) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`; `whole` keeps them integers.

    >>> ticks(0.12, 0.93, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low <= 1e-12 * max(abs(low), abs(high)):  # but for rounding one value
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = nice_step(high - low, num)
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(12, 3 - math.floor(math.log10(step)))  # .3, not 3 * .1
    return [round(index * step, decimals) for index in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick's number with the decimals that its step needs."""
    if abs(value) >= 1e5:
        return f"{value:.0e}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


class Line(NamedTuple):
    """Points in order of x, a place in the colours (None: that of text) and one in DASHES."""

    points: Sequence[tuple[float, float]]
    colour: int | None
    dash: int = 0

    @property
    def paint(self) -> str:
        """Its colour as CSS."""
        return "var(--quiet)" if self.colour is None else f"var(--series-{self.colour % NUM_COLOURS})"

    @property
    def style(self) -> str:
        """How it is drawn."""
        dash = DASHES[self.dash % len(DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        return f'style="stroke:{self.paint}"{dashed}'


def line_chart(title: str, series: Series, heading: str = "", x_label: str = "epoch") -> str:
    """An SVG element with one line per series.

    Args:
        title: the accessible name.
        series: name -> (x, y) points in order of x; points that are not finite are left out, a lone point is a dot.
        heading: above the vertical axis, left of the legend.
        x_label: below the horizontal axis.

    Returns:
        `<svg>...</svg>`, names escaped; an empty string where no point is finite.
    """
    finite = {name: points for name, given in series.items() if (points := _finite(given))}
    lines = {
        name: Line(points, index % NUM_COLOURS, index // NUM_COLOURS)
        for index, (name, points) in enumerate(finite.items())
    }
    return _chart(title, list(lines.values()), lines, heading, x_label)


def overlay(
    title: str,
    quantity: str,
    sides: Mapping[str, Mapping[str, Sequence[float]]],
    heading: str = "",
    x_label: str = "epoch",
) -> str:
    """The curves of one quantity of several trainings over each other, a colour for each.

    Args:
        title: the accessible name.
        quantity: a column of training.csv, such as `loss`; with it that of the validation split, dashed, or a ring.
        sides: what a training is called -> columns by name, `epoch` among them.
        heading: above the vertical axis.
        x_label: below the horizontal axis.

    Returns:
        As `line_chart`; an empty string too where no side has more than one epoch.
    """
    lines: list[Line] = []
    keys: dict[str, Line] = {}
    for colour, (label, columns) in enumerate(sides.items()):
        for dash, name in enumerate((quantity, f"val_{quantity}")):
            points = _finite(zip(columns.get("epoch", ()), columns.get(name, ()), strict=False))
            if points:
                lines.append(Line(points, colour, dash))
                keys.setdefault(label, Line((), colour))
    if all(len(line.points) < 2 for line in lines):
        return ""
    if any(line.dash for line in lines):
        keys["validation"] = Line((), None, 1)
    return _chart(title, lines, keys, heading, x_label)


def unit_of(model: str, columns: Mapping[str, Sequence[float]]) -> str:
    """What the rows of a training.csv count: of a fitted model steps from 0, or the combinations of its options."""
    if not is_fitted(model):
        return "epoch"
    return "step" if columns.get("epoch", [1])[0] == 0 else "combination of options, as listed"


def shared_unit(trainings: Iterable[tuple[str, Mapping[str, Sequence[float]]]]) -> str:
    """What the rows of several trainings, each a model and its columns, count; a single row counts nothing."""
    units = [unit_of(model, columns) for model, columns in trainings if len(columns.get("epoch", ())) > 1]
    return " or ".join(dict.fromkeys(units)) or "epoch"


def quantities(columns: Iterable[str]) -> list[str]:
    """What a training.csv tells of its training by epoch: the loss, then scores; no parts of the loss, no rates.

    >>> quantities(["epoch", "lr", "loss", "loss_box", "top1", "val_loss", "val_top1", "val_miou"])
    ['loss', 'top1', 'miou']
    """
    names = dict.fromkeys(name.removeprefix("val_") for name in columns)
    return [name for name in names if name not in NO_QUANTITIES and not name.startswith("loss_")]


def standing_alone(svg: str, width: int = WIDTH) -> str:
    """A chart as a file: with the colours that the page would give it, in light mode, and a size in pixels."""
    size = f'width="{width}" height="{round(width * HEIGHT / WIDTH)}"'
    head, tail = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{tail}\n'


def _finite(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _chart(title: str, lines: Sequence[Line], keys: Mapping[str, Line], heading: str, x_label: str) -> str:
    """Axes, lines with at least one point each, and a legend of `keys`; an empty string without lines."""
    if not lines:
        return ""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    y_ticks = ticks(min(ys), max(ys), 5)
    whole = all(x == int(x) for x in xs)
    x_ticks = [x for x in ticks(min(xs), max(xs), 7, whole) if min(xs) <= x <= max(xs)] or [xs[0]]
    low_x, high_x = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 1, xs[0] + 1)

    spots = _legend(heading, keys)
    top = TOP + LEGEND_ROW * max((row for row, _ in spots), default=0)

    def place_x(x: float) -> float:
        return LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def place_y(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - top - BOTTOM)

    name = escape(title)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">',
        f"<title>{name}</title>",
    ]
    step = y_ticks[1] - y_ticks[0]
    for y in y_ticks:
        height = f"{place_y(y):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{height}" dy="0.32em" text-anchor="end">{tick_label(y, step)}</text>')
    step = x_ticks[1] - x_ticks[0] if len(x_ticks) > 1 else 1.0
    below = HEIGHT - BOTTOM + 16
    parts += [
        f'<text x="{place_x(x):.1f}" y="{below}" text-anchor="middle">{tick_label(x, step)}</text>' for x in x_ticks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="heading" x="4" y="14" dy="0.32em">{escape(heading)}</text>')
    for line in lines:
        if len(line.points) == 1:
            x, y = line.points[0]
            style = f"fill:none;stroke:{line.paint};stroke-width:2" if line.dash else f"fill:{line.paint}"
            parts.append(f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3.5" style="{style}"/>')
        else:
            path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in line.points)
            parts.append(f'<polyline points="{path}" {line.style}/>')
    for (label, line), (row, offset) in zip(keys.items(), spots, strict=True):
        y = 14 + LEGEND_ROW * row
        place = f'x1="{offset:.1f}" x2="{offset + 16:.1f}" y1="{y}" y2="{y}"'
        parts.append(f'<line class="key" {place} {line.style}/>')
        parts.append(f'<text x="{offset + 21:.1f}" y="{y}" dy="0.32em">{escape(label)}</text>')
    parts.append("</svg>")
    return "".join(parts)


def _legend(heading: str, keys: Iterable[str]) -> list[tuple[int, float]]:
    """The row and the left end of each key, behind the heading; a key that would be cut begins another row."""
    spots: list[tuple[int, float]] = []
    row, offset = 0, float(LEFT) + 8 + 4 * max(0, len(heading) - 4)
    for label in keys:
        width = 21 + 6.4 * len(label)
        if spots and offset + width > WIDTH:
            row, offset = row + 1, float(LEFT) + 8
        spots.append((row, offset))
        offset += width + 16
    return spots
