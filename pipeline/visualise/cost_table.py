"""What the layers of a run's network cost, from params.yaml alone, and that as a table of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import ParamsError, did_you_mean
from pipeline.models import tasks
from pipeline.params import Params
from pipeline.structures import DatasetInfo
from pipeline.visualise.layer_costs import Layer, layers_of

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
    tasks.check_one_pass(entry.model, f"{where}.model")
    info = Store(paths.raw(entry.dataset)).info
    side = image_size or (entry.training.image_size if entry.training else None)
    size = [side, side] if side else info.image_size
    if size is None:
        raise ParamsError(f"{where}: images of several sizes; fix: set training.image_size")
    return of_model(entry.model, entry.model_params, tasks.at_size(info, (size[0], size[1])))


def of_model(model: str, model_params: dict[str, Any], info: DatasetInfo) -> list[Layer]:
    """The layers of a network for images of `info.image_size`, which is known."""
    assert info.image_size is not None
    height, width = info.image_size
    network = tasks.bare(model, info, tasks.for_restoring(model, model_params))
    return layers_of(network, (info.channels, height, width))


def lines(layers: Sequence[Layer]) -> list[str]:
    """The table as text, with its sums below."""
    head = ("layer", "kind", "output", "kernel", "stride", "parameters", "FLOPs", "bytes", "field", "jump")
    rows = [head, *(cells(layer) for layer in layers)]
    sums = totals(layers)
    rows.append(("total", "", "", "", "", *(f"{sums[key]:,}" for key in ("parameters", "flops", "memory")), "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    texts = []
    for row in rows:
        aligned = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        texts.append("  ".join(aligned).rstrip())
    return [*texts, CONVENTION]


def cells(layer: Layer) -> tuple[str, ...]:
    """A layer's row of the table."""
    numbers = (f"{each:,}" for each in (layer.parameters, layer.flops, layer.memory))
    pairs = (layer.kernel, layer.stride)
    return (
        layer.name,
        layer.kind,
        product(layer.shape),
        *(product(pair or ()) for pair in pairs),
        *numbers,
        *(side_of(pair) for pair in (layer.receptive_field, layer.jump)),
    )


def product(numbers: Sequence[float]) -> str:
    """A shape such as 3x32x32."""
    return "x".join(f"{number:g}" for number in numbers)


def side_of(pair: tuple[float, float] | None) -> str:
    """One number where both sides are equal."""
    if pair is None:
        return ""
    return f"{pair[0]:g}" if pair[0] == pair[1] else product(pair)
