"""What a network costs, layer by layer, as a table and a picture; see layer_costs for the closed forms."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.models import tasks
from pipeline.params import Params, Visualisation
from pipeline.visualise import draw
from pipeline.visualise.cost_table import CONVENTION, cells, of_model, product, side_of, totals
from pipeline.visualise.layer_costs import Layer

DRAWS = True
MOST_BARS = 40


def grouped(layers: Sequence[Layer], most: int) -> list[Layer]:
    """Layers of one part of the network added up, the deepest parts first, until at most so many rows are left.

    A part shows the shape that its last layer gives and the widest receptive field in it.
    """
    rows = list(layers)
    while len(rows) > most and any("." in row.name for row in rows):
        depth = max(row.name.count(".") for row in rows)
        merged: dict[str, Layer] = {}
        for row in rows:
            name = row.name.rsplit(".", 1)[0] if row.name.count(".") == depth else row.name
            before = merged.get(name)
            if before is not None:
                sums = {key: getattr(before, key) + getattr(row, key) for key in ("parameters", "flops", "memory")}
                wider = max((each for each in (before, row) if each.receptive_field), key=_width, default=row)
                row = replace(row, **sums, receptive_field=wider.receptive_field, jump=wider.jump)
            if before is not None or name != row.name:
                row = replace(row, name=name, kind="", kernel=None, stride=None)
            merged[name] = row
        rows = list(merged.values())
    return rows


def _width(layer: Layer) -> float:
    return layer.receptive_field[0] if layer.receptive_field else 0.0


def bars(path: Path, layers: Sequence[Layer]) -> None:
    """Bars of parameters, FLOPs, memory and receptive field, a row for each layer or, of many, for each part."""
    rows = grouped([layer for layer in layers if layer.shape], MOST_BARS)
    names = [f"{row.name} {row.kind}  {product(row.shape)}" for row in rows]
    columns: list[tuple[str, list[float], list[str]]] = [
        (title, [float(getattr(row, key)) for row in rows], [_short(getattr(row, key)) for row in rows])
        for title, key in (("parameters", "parameters"), ("FLOPs", "flops"), ("bytes of activations", "memory"))
    ]
    fields = [_width(row) for row in rows]
    columns.append(("receptive field, pixels", fields, [f"{value:g}" if value else "" for value in fields]))
    size = (12, 1.2 + 0.21 * len(rows))
    with draw.figure(path, size, dpi=90) as figure:
        axes = figure.subplots(1, len(columns), sharey=True)
        for axis, (title, values, texts) in zip(axes, columns, strict=True):
            drawn = axis.barh(range(len(rows)), values, color="#3b6ea5")
            axis.bar_label(drawn, texts, padding=2, fontsize=7)
            axis.set_title(title, fontsize=9)
            axis.margins(x=0.25, y=0.01)
            axis.set_xticks([])
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        axes[0].set_yticks(range(len(rows)), names, fontsize=7)
        axes[0].invert_yaxis()


def _short(number: float) -> str:
    """Three digits and k, M or G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}" if number else ""


def layers(params: Params, entry: Visualisation, folder: Path) -> tuple[str, str]:
    """The table of a trained run's network as complexity.csv, complexity.json and complexity.png.

    Returns:
        A title and a caption.
    """
    from pipeline.training import checkpoint as checkpoints

    checkpoint = checkpoints.load(paths.inputs(entry.inputs))
    tasks.check_one_pass(checkpoint.model, f"{paths.PARAMS} {entry.inputs}")
    assert checkpoint.info.image_size is not None  # that of its training
    found = of_model(checkpoint.model, checkpoint.model_params, checkpoint.info)
    sums = totals(found)
    paths.write_json(
        folder / "complexity.json", {"convention": CONVENTION, "totals": sums, "layers": [asdict(f) for f in found]}
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "kind", "output", "kernel", "stride", "parameters", "flops", "bytes", "field", "jump"])
    for row in found:
        numbers = (row.parameters, row.flops, row.memory)
        pairs = (side_of(row.receptive_field), side_of(row.jump))
        writer.writerow([row.name, row.kind, product(row.shape), *cells(row)[3:5], *numbers, *pairs])
    with paths.written_whole(folder / "complexity.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    bars(folder / "complexity.png", found)
    height, width = checkpoint.info.image_size
    spoken = f"{sums['parameters']:,} parameters, {_short(sums['flops'])} FLOPs and {_short(sums['memory'])} bytes"
    return (
        f"Layers of {entry.inputs.split('/')[-1]}",
        f"{checkpoint.model} for an image of {height}x{width}: {spoken} of activations. {CONVENTION}",
    )


METHODS: dict[str, Any] = {"layers": layers}
