"""Renders reports/ as one self-contained page: pictures and script inline, no address outside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.reporting.contents import Contents, DataReport, Trained
from pipeline.reporting.contrasts import Contrast, note
from pipeline.reporting.curves import Series, line_chart, quantities, unit_of
from pipeline.reporting.scores import Kind, printed, score

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
WIDE = 1.5  # width over height from which a picture takes the full width of its card
FACTS_FIRST = ("licence", "attribution", "source", "checksum")
CORRUPTED = {
    "mpc": "mean under corruption ↑",
    "rpc": "share of clean ↑",
    "corruption_error": "corruption error ↓",
    "corruption_error_over_clean": "error over clean ↓",
}
VERDICT_CLASSES = {"shows": "shown", "does not show": "refuted"}
ORDER = ("train", "val", "test", "smallest", "first quartile", "median", "third quartile", "largest")


def render(contents: Contents, contrasts: Sequence[Contrast] = ()) -> str:
    """The HTML of the report; the same string for the same contents and contrasts."""
    from markupsafe import Markup

    css, js = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode("ascii")
    return (
        environment()
        .get_template("page.html.j2")
        .render(contents=contents, contrasts=contrasts, css=css, js=js, js_hash=Markup(f"sha256-{digest}"))
    )


def embedded(content: Any) -> Any:
    """JSON inside a script element: no text of it can end the element or open a comment."""
    from markupsafe import Markup

    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


@cache
def environment() -> Environment:
    """Templates beside this file, everything in them escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["printed"] = printed
    made.globals.update(
        note=note,
        VERDICT_CLASSES=VERDICT_CLASSES,
        bar=bar,
        best=best,
        in_mlflow=in_mlflow,
        inline=inline,
        charts=charts,
        data_uri=lambda picture: data_uri(picture.bytes()),
        embedded=embedded,
        entry_rows=entry_rows,
        score=score,
        score_names=score_names,
        statistics=statistics,
        CORRUPTED=CORRUPTED,
        WIDE=WIDE,
    )
    return made


def data_uri(png: bytes) -> str:
    """A picture itself as an address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def bar(one: Trained, kind: Kind) -> dict[str, Any] | None:
    """How far the bar of a run's main score reaches and where its foil stands, in percent of the bar's track.

    A score that is no share is drawn against its foil, which then is the whole track. None without a number to draw.
    """
    value, foil = one.scores.get(kind.main), one.scores.get(kind.foil or "")
    if value is None:
        return None
    if kind.is_share:
        return {"percent": _percent(value), "foil": None if foil is None else _percent(foil)}
    return {"percent": _percent(value / foil), "foil": None} if foil else None


def _percent(fraction: float) -> str:
    return f"{100 * min(max(fraction, 0.0), 1.0):.1f}"


def best(members: list[Trained], kind: Kind) -> set[str]:
    """The names of the best run on each split of a dataset that at least two runs of this kind are judged on."""
    higher_is_better = score(kind.task, kind.main).higher_is_better
    winners = set()
    for images in {(one.dataset, one.entry.judged_on) for one in members}:
        alike = [one for one in members if (one.dataset, one.entry.judged_on) == images]
        values = {one.name: one.scores.get(kind.main) for one in alike}
        defined = {name: value for name, value in values.items() if value is not None}
        if len(defined) > 1 and higher_is_better is not None:
            top = max(defined.values()) if higher_is_better else min(defined.values())
            winners |= {name for name, value in defined.items() if value == top}
    return winners


def score_names(one: Trained) -> list[str]:
    """The scores of a run: the main one, those that stand beside it, then the rest as metrics.json has them."""
    first = [name for name in (one.kind.main, *one.kind.others) if name in one.scores]
    return first + [name for name in one.scores if name not in first]


def charts(one: Trained) -> list[Any]:
    """The training curves with their captions: losses, their parts, scores, then what steered the steps."""
    epochs = one.training.get("epoch", [])
    columns = {name: list(zip(epochs, values, strict=True)) for name, values in one.training.items()}
    losses = {name: points for name, points in columns.items() if name in ("loss", "val_loss")}
    parts = {name[5:].replace("_", " "): points for name, points in columns.items() if name.startswith("loss_")}
    judged = [name for name in quantities(columns) if name != "loss"]
    scores = {name: points for name, points in columns.items() if name.removeprefix("val_") in judged}
    rates = {"lr": columns["lr"]} if "lr" in columns else {}
    norms = {"grad norm": columns["grad_norm"]} if "grad_norm" in columns else {}
    unit = unit_of(one.entry.model, one.training)

    def chart(what: str, series: Series) -> str:
        return line_chart(f"{what} of {one.name} by {unit}", series, x_label=unit)

    drawn = (
        (f"Loss by {unit}; val is the validation split", chart("Loss", losses)),
        (f"Parts of the training loss by {unit}", chart("Parts of the loss", parts)),
        (f"Scores by {unit}; val is the validation split", chart("Scores", scores)),
        ("Learning rate at the end of each epoch", line_chart(f"Learning rate of {one.name} by epoch", rates)),
        ("Mean norm of the gradient before clipping", line_chart(f"Gradient norm of {one.name} by epoch", norms)),
    )
    return [(caption, inline(svg)) for caption, svg in drawn if svg] if len(epochs) > 1 else []


def inline(svg: str) -> Any:
    """A chart of this package as markup, which it is already."""
    from markupsafe import Markup

    return Markup(svg)


def in_mlflow(one: Trained) -> str:
    """What finds the stages of a run on MLflow's own page; their addresses there hold ids that no file knows."""
    return f'tags.name = "{one.name}"'


def entry_rows(one: Trained) -> list[tuple[str, str]]:
    """The choices of params.yaml that made this run, as dotted keys and values."""
    content = one.entry.model_dump()
    return [row for part in content if part not in ("model", "dataset", "inputs") for row in _flat(part, content[part])]


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for inner, content in value.items() for row in _flat(f"{key}.{inner}", content)]
    if isinstance(value, list | tuple):
        return [(key, ", ".join(str(one) for one in value) or "none")]
    return [(key, str(value))] if value is not None else []


def statistics(report: DataReport) -> dict[str, Any]:
    """A dataset's statistics by shape: facts (what, value), tables of numbers and matrices with named columns."""
    facts, tables, matrices = [], [], []
    ordered = sorted(
        report.statistics, key=lambda key: (key not in FACTS_FIRST, FACTS_FIRST.index(key) if key in FACTS_FIRST else 0)
    )
    for key in ordered:
        value, title = report.statistics[key], key.replace("_", " ")
        if isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values()):
            columns = sorted({name for inner in value.values() for name in inner}, key=_place)
            rows = {row: [value[row].get(name) for name in columns] for row in sorted(value, key=_place)}
            matrices.append({"title": title, "columns": columns, "rows": rows})
        elif isinstance(value, dict):
            tables.append({"title": title, "rows": {name: value[name] for name in sorted(value, key=_place)}})
        elif isinstance(value, list):
            facts.append(
                (title, " × ".join(str(v) for v in value) if key.endswith("size") else ", ".join(map(str, value)))
            )
        elif value not in (None, ""):
            facts.append((title, value))
    return {"facts": facts, "tables": [table for table in tables if table["rows"]], "matrices": matrices}


def _place(name: str) -> tuple[int, int, str]:
    """Where a name stands, for JSON sorts its keys: splits and quartiles in their own order, numbers by size."""
    if name in ORDER:
        return 0, ORDER.index(name), name
    return 1, int(name) if name.isdecimal() else 0, name
