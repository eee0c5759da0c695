"""What the layers of a network give before it has learnt anything, by how its weights begin."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import paths
from pipeline.data.loader import Loader, common_size
from pipeline.data.store import Store
from pipeline.errors import ParamsError
from pipeline.models import layers, tasks
from pipeline.models.initialisation import LAYERS, initialise
from pipeline.params import Params, Visualisation
from pipeline.structures import DatasetInfo
from pipeline.training import checkpoint as checkpoints
from pipeline.training import seeding
from pipeline.visualise import draw

DRAWS = True
SMALLEST = 1e-12
"""What a smaller standard deviation, or none, is drawn as on a scale of powers of ten."""
COLUMNS = 5
"""Layers of which histograms are drawn."""


def activations(
    params: Params,
    entry: Visualisation,
    folder: Path,
    *,
    kinds: list[str] = ["zeros", "small_gaussian", "xavier", "kaiming"],  # noqa: B006
    depth: int = 20,
    width: int = 256,
    activation: layers.ActivationKind = "relu",
    num_images: int = 256,
) -> tuple[str, str]:
    """Mean and standard deviation of what each layer gives, and histograms of some of them.

    Of data, the network is a plain perceptron, as deep and wide as told; of a checkpoint, it is that run's network,
    begun anew.

    Args:
        params: gives the seed.
        entry: its `inputs` are raw/NAME, augmented/NAME or checkpoints/NAME.
        folder: to which statistics.png and histograms.png are written.
        kinds: of `training.init`.
        depth, width: layers of the perceptron, and units of each.
        activation: between the layers of the perceptron.
        num_images: of the training split, at even steps.

    Returns:
        A title and a caption.

    Raises:
        ParamsError: the inputs are features, or a model that is no single pass from an image to an answer.
    """
    kind, _, name = entry.inputs.partition("/")
    if kind == "features":
        raise ParamsError(f"{paths.PARAMS} {entry.inputs}: features have no network; fix: raw/NAME or checkpoints/NAME")
    compute = seeding.set_up(params.defaults)
    trained = checkpoints.load(paths.inputs(entry.inputs)) if kind == "checkpoints" else None
    if trained:
        tasks.check_one_pass(trained.model, f"{paths.PARAMS} {entry.inputs}")
    store = Store(paths.raw(entry.dataset) if trained else paths.inputs(entry.inputs))
    split = store.split("train")
    if trained and trained.info.image_size:
        rows, columns = trained.info.image_size
        size = rows, columns
    else:
        size = common_size(split, None)
    chosen = np.linspace(0, len(split) - 1, num=min(num_images, len(split))).astype(int)
    images = next(Loader(split, len(chosen), size).batches(chosen)).to(compute.device).images
    given: dict[str, list[np.ndarray]] = {}
    for start in kinds:
        torch.manual_seed(seeding.derive(params.defaults.seed, "activations"))
        if trained:
            model_params = tasks.with_weights(trained.model, trained.model_params, "none")
            network = tasks.bare(trained.model, trained.info, model_params)
        else:
            network = perceptron(tasks.at_size(store.info, size), depth=depth, width=width, activation=activation)
        initialise(network, start)
        given[start] = outputs(network.to(compute.device), images)
    _draw_statistics(folder / "statistics.png", given)
    _draw_histograms(folder / "histograms.png", given)
    what = f"the network of {name}" if trained else f"a perceptron of {depth} layers of {width} units with {activation}"
    given_for = f"What each linear or convolutional layer of {what} gives for {len(images)} images before any training"
    return f"Activations at the start: {name}", f"{given_for}, by how the weights begin."


def perceptron(info: DatasetInfo, *, depth: int, width: int, activation: str) -> nn.Sequential:
    """[B, C, H, W] -> [B, width] through `depth` linear layers, each followed by its activation."""
    assert info.image_size is not None
    inputs = [info.channels * math.prod(info.image_size)] + [width] * (depth - 1)
    gives = width * layers.pieces(activation)
    modules = [(nn.Linear(takes, gives), layers.activation(activation)) for takes in inputs]
    return nn.Sequential(layers.Normalise(info.mean, info.std), nn.Flatten(), *itertools.chain(*modules))


@torch.no_grad()
def outputs(network: nn.Module, images: Tensor) -> list[np.ndarray]:
    """What each linear or convolutional layer gives while training, before its activation, in the order of use.

    Args:
        network: that takes `images`.
        images: [B, C, H, W].

    Returns:
        A flat float32 array for each use of a layer.
    """
    found: list[np.ndarray] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        values = output[0] if isinstance(output, tuple) else output
        found.append(values.detach().float().flatten().cpu().numpy())

    handles = [m.register_forward_hook(keep) for m in network.modules() if isinstance(m, LAYERS)]
    try:
        network.train()(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def statistics(given: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each layer's values, two arrays of one number a layer."""
    return np.array([values.mean() for values in given]), np.array([values.std() for values in given])


def _draw_statistics(path: Path, given: dict[str, list[np.ndarray]]) -> None:
    from matplotlib.ticker import MaxNLocator

    with draw.figure(path, (9, 3.6), dpi=110) as figure:
        means, stds = figure.subplots(1, 2)
        for (kind, values), marker in zip(given.items(), itertools.cycle("osv^D")):
            mean, std = statistics(values)
            steps = np.arange(1, len(values) + 1)
            means.plot(steps, mean, marker=marker, markersize=3.5, linewidth=1.2, label=kind)
            stds.plot(steps, np.maximum(std, SMALLEST), marker=marker, markersize=3.5, linewidth=1.2, label=kind)
        stds.set_yscale("log")
        means.set(xlabel="layer", title="mean")
        stds.set(xlabel=f"layer (what is below {SMALLEST:g} is drawn there)", title="standard deviation")
        for axes in (means, stds):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True, linewidth=0.4, alpha=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(*stds.get_legend_handles_labels(), loc="outside right upper", frameon=False)


def _draw_histograms(path: Path, given: dict[str, list[np.ndarray]]) -> None:
    """A row of histograms for each kind, each over its own range: a peak at 0 is a signal that has died."""
    depth = len(next(iter(given.values())))
    shown = sorted({round(place) for place in np.linspace(0, depth - 1, COLUMNS)})
    reach = max(float(np.abs(values[0]).max()) for values in given.values()) or 1.0
    with draw.figure(path, (9, 1.5 * len(given)), dpi=110) as figure:
        rows = figure.subplots(len(given), len(shown), squeeze=False)
        for row, (kind, values) in zip(rows, given.items(), strict=True):
            for axes, layer in zip(row, shown, strict=True):
                axes.hist(values[layer], bins=np.linspace(-reach, reach, 41), color="#356fa5")
                axes.set_yticks([])
                axes.spines[["top", "right", "left"]].set_visible(False)
                axes.tick_params(labelsize=7)
                axes.set_title(f"{kind}, layer {layer + 1}", fontsize=8)


METHODS: dict[str, Any] = {"activations": activations}
