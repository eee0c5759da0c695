"""Renders reports/ as Markdown that a git host shows: one table per kind of work, pictures by relative links."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from pipeline import paths
from pipeline.reporting.contents import Contents, Picture, Trained
from pipeline.reporting.contrasts import Contrast, note
from pipeline.reporting.scores import printed, score


def render(contents: Contents, contrasts: Sequence[Contrast] = ()) -> str:
    """The Markdown of the summary; the same string for the same contents and contrasts."""
    otherwise = "" if contents.is_all_of_test else ", where a table names no other"
    lines = [
        "# Summary",
        "",
        f"Scores on the test split{otherwise}. ↑ higher is better, ↓ lower is better, n/a undefined.",
        "`python -m pipeline report` writes this file and the page `index.html` from `reports/`.",
    ]
    for members in contents.kinds.values():
        lines += _kind(members)
    lines += _contrasts(contrasts) if contrasts else []
    lines += _robustness(contents) if contents.robustness else []
    lines += _searches(contents) if contents.searches else []
    lines += _duels(contents) if contents.duels else []
    lines += _pictures(contents)
    lines += _data(contents) if contents.datasets else []
    return "\n".join(lines) + "\n"


def _kind(members: list[Trained]) -> list[str]:
    kind = members[0].kind
    names = [name for name in (kind.main, *kind.others) if name]
    has_split = any(one.told_split for one in members)
    columns = ["run", "model", "inputs", *(["split"] if has_split else [])]
    scores = [f"{score(kind.task, name).label} {score(kind.task, name).arrow}".strip() for name in names]
    rows = [_row(one, names, has_split) for one in members]
    return ["", f"## {kind.title}", "", *table([*columns, *scores], rows, num_text=len(columns))]


def _contrasts(contrasts: Sequence[Contrast]) -> list[str]:
    columns = ["claim", "verdict", "idea", "foil", "curves", "metric", "of idea", "of foil", "difference", "interval"]
    rows = [_contrast(one) for one in contrasts]
    return ["", "## Ideas and their foils", "", note(contrasts), "", *table(columns, rows, num_text=6)]


def _robustness(contents: Contents) -> list[str]:
    said = "The mean score on corrupted images, and its share of that on clean ones."
    rows = [
        [text(one.name), text(one.run), *(printed(one.scores.get(name)) for name in ("mpc", "rpc"))]
        for one in contents.robustness
    ]
    columns = ["name", "run", "mean under corruption ↑", "share of clean ↑"]
    return ["", "## Robustness", "", said, "", *table(columns, rows, num_text=2)]


def _searches(contents: Contents) -> list[str]:
    rows = [
        [
            text(one.name),
            text(one.run),
            text(", ".join(f"{key} {value}" for key, value in one.best.items())),
            printed(next(iter(one.scores.values()))),
            printed(one.scores.get("trials")),
        ]
        for one in contents.searches
    ]
    said = "Options that did best on the validation split."
    columns = ["name", "run", "best options", "value", "trials"]
    return ["", "## Searches", "", said, "", *table(columns, rows, num_text=3)]


def _duels(contents: Contents) -> list[str]:
    rows = [
        [
            text(duel.model),
            text(duel.dataset),
            printed(duel.on_features.scores.get("top1")),
            printed(duel.on_pixels.scores.get("top1")),
            "n/a" if duel.gain is None else f"{duel.gain:+.3f}",
        ]
        for duel in contents.duels
    ]
    said = "Top-1 of the same head with the same parameters."
    columns = ["head", "dataset", "on features", "on pixels", "gain"]
    return ["", "## Features or pixels", "", said, "", *table(columns, rows, num_text=2)]


def _pictures(contents: Contents) -> list[str]:
    trained = [one for members in contents.kinds.values() for one in members]
    shown = [
        (one.name, picture)
        for one in trained
        for picture in one.pictures
        if picture.path.stem in ("predictions", "samples")
    ]
    shown += [(one.name, picture) for one in contents.visualisations for picture in one.pictures[:1]]
    lines = ["", "## Pictures"] if shown else []
    for name, picture in shown:
        lines += ["", f"**{text(name)}**: {text(picture.caption)}", "", link(picture)]
    return lines


def _data(contents: Contents) -> list[str]:
    rows = [
        [text(one.name), text(one.statistics.get("licence", "n/a")), text(one.statistics.get("attribution", "n/a"))]
        for one in contents.datasets
    ]
    lines = ["", "## Data", "", *table(["dataset", "licence", "attribution"], rows, num_text=3)]
    for one in contents.datasets:
        skipped = (one.health or {}).get("skipped") or {}
        leaks = [f"{check['total']} {kind}" for kind, check in one.checks if "across" in kind]
        left_out = [f"{number} {what} left out" for what, number in sorted(skipped.items()) if number]
        if leaks or left_out:
            lines += ["", f"{text(one.name)}: {text('; '.join(leaks + left_out))}."]
    return lines


def _row(one: Trained, names: list[str], has_split: bool) -> list[str]:
    scores = [printed(one.scores.get(name)) for name in names]
    about = [one.name, one.model, one.inputs, *([one.entry.judged_on] if has_split else [])]
    return [*map(text, about), *(f"**{one}**" for one in scores[:1]), *scores[1:]]


def _contrast(one: Contrast) -> list[str]:
    chart = address(paths.CONTRASTS / f"{one.name}.svg")
    return [
        text(one.claim),
        f"**{one.verdict}**",
        text(one.idea),
        text(one.foil),
        f"![{text(f'{one.idea} and {one.foil}')}]({chart})" if one.chart else "",
        one.judged_by,
        printed(one.difference.head),
        printed(one.difference.base),
        one.change,
        one.interval,
    ]


def text(value: object) -> str:
    r"""A name or a sentence as Markdown shows it literally, in one table cell.

    >>> print(text("a|b `c` <script> x_y"))
    a\|b \`c\` &lt;script&gt; x\_y
    """
    flat = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|!#~" else char for char in flat)


def link(picture: Picture) -> str:
    """A picture of the report, relative to the summary."""
    return f"![{text(picture.caption)}]({address(picture.path)})"


def address(path: Path) -> str:
    """A file of the report, relative to the summary."""
    return quote(os.path.relpath(path, paths.SUMMARY.parent))


def table(columns: list[str], rows: list[list[str]], num_text: int) -> list[str]:
    """The lines of a table whose first `num_text` columns are text and whose others are numbers."""
    marks = ["---"] * num_text + ["---:"] * (len(columns) - num_text)
    return [f"| {' | '.join(row)} |" for row in (columns, marks, *rows)]
