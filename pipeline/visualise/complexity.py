"""What a network costs, layer by layer, as a table and a picture; see layer_costs for the closed forms."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import ParamsError, did_you_mean
from pipeline.models import tasks
from pipeline.params import Params, Visualisation
from pipeline.structures import DatasetInfo
from pipeline.visualise.layer_costs import Layer, layers_of

DRAWS = True
MOST_BARS = 40
NO_LAYERS = ("heads/", "detection/", "generative/")
"""Models that are no single pass from an image to an answer."""
CONVENTION = "FLOPs are twice the multiply-adds; memory is of float32 results; one image; evaluation."


def totals(layers: Sequence[Layer]) -> dict[str, int]:
    """Sums over all layers."""
    return {key: sum(getattr(layer, key) for layer in layers) for key in ("parameters", "flops", "memory")}


def of_run(params: Params, name: str, image_size: int | None = None) -> list[Layer]:
    """The layers of a run's network for images of its dataset, from params.yaml alone: nothing need be trained.

    Args:
        params: has the run.
        name: of the run.
        image_size: height and width; that of the run's training, or of its dataset, without it.

    Raises:
        ParamsError: no such run, a model without layers, or images of several sizes.
        PipelineError: the dataset is not there, or the network does not take its images.
    """
    if name not in params.runs:
        raise ParamsError(f"{paths.PARAMS}: no {name!r} in runs; {did_you_mean(name, params.runs)}")
    entry = params.runs[name]
    where = f"{paths.PARAMS} runs.{name}"
    if entry.model.startswith(NO_LAYERS):
        raise ParamsError(f"{where}.model: {entry.model} is no single pass from image to answer; fix: a classifier")
    info = Store(paths.raw(entry.dataset)).info
    side = image_size or (entry.training.image_size if entry.training else None)
    size = [side, side] if side else info.image_size
    if size is None:
        raise ParamsError(f"{where}: images of several sizes; fix: set training.image_size")
    return _of_model(entry.model, entry.model_params, tasks.at_size(info, (size[0], size[1])))


def _of_model(model: str, model_params: dict[str, Any], info: DatasetInfo) -> list[Layer]:
    assert info.image_size is not None
    height, width = info.image_size
    built = tasks.builder(model)(info, **tasks.for_restoring(model_params))
    network = getattr(built, "network", built)  # what learns without labels brings its own loss around it
    return layers_of(network, (info.channels, height, width))


def lines(layers: Sequence[Layer]) -> list[str]:
    """The table as text, with its sums below."""
    head = ("layer", "kind", "output", "kernel", "stride", "parameters", "FLOPs", "bytes", "field", "jump")
    rows = [head, *(_cells(layer) for layer in layers)]
    sums = totals(layers)
    rows.append(("total", "", "", "", "", *(f"{sums[key]:,}" for key in ("parameters", "flops", "memory")), "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    texts = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip())
    return [*texts, CONVENTION]


def _cells(layer: Layer) -> tuple[str, ...]:
    numbers = (f"{each:,}" for each in (layer.parameters, layer.flops, layer.memory))
    pairs = (layer.kernel, layer.stride)
    return (
        layer.name,
        layer.kind,
        _product(layer.shape),
        *(_product(pair or ()) for pair in pairs),
        *numbers,
        *(_side(pair) for pair in (layer.receptive_field, layer.jump)),
    )


def _product(numbers: Sequence[float]) -> str:
    return "x".join(f"{number:g}" for number in numbers)


def _side(pair: tuple[float, float] | None) -> str:
    """One number where both sides are equal."""
    if pair is None:
        return ""
    return f"{pair[0]:g}" if pair[0] == pair[1] else _product(pair)


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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = grouped([layer for layer in layers if layer.shape], MOST_BARS)
    names = [f"{row.name} {row.kind}  {_product(row.shape)}" for row in rows]
    columns: list[tuple[str, list[float], list[str]]] = [
        (title, [float(getattr(row, key)) for row in rows], [_short(getattr(row, key)) for row in rows])
        for title, key in (("parameters", "parameters"), ("FLOPs", "flops"), ("bytes of activations", "memory"))
    ]
    fields = [_width(row) for row in rows]
    columns.append(("receptive field, pixels", fields, [f"{value:g}" if value else "" for value in fields]))
    size = (12, 1.2 + 0.21 * len(rows))
    figure, axes = plt.subplots(1, len(columns), figsize=size, dpi=90, sharey=True, layout="constrained")
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
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


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
    if checkpoint.model.startswith(NO_LAYERS) or checkpoint.info.image_size is None:
        where = f"{paths.PARAMS} {entry.inputs}"
        raise ParamsError(f"{where}: {checkpoint.model} is no single pass from image to answer; fix: a classifier")
    found = _of_model(checkpoint.model, checkpoint.model_params, checkpoint.info)
    sums = totals(found)
    paths.write_json(
        folder / "complexity.json", {"convention": CONVENTION, "totals": sums, "layers": [asdict(f) for f in found]}
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "kind", "output", "kernel", "stride", "parameters", "flops", "bytes", "field", "jump"])
    for row in found:
        numbers = (row.parameters, row.flops, row.memory)
        pairs = (_side(row.receptive_field), _side(row.jump))
        writer.writerow([row.name, row.kind, _product(row.shape), *_cells(row)[3:5], *numbers, *pairs])
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
