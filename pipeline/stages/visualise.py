"""Looks inside a network or a feature space. Reads a checkpoint or features; writes reports/visualise/<name>.

The methods of a module with DRAWS = True draw by themselves: `method(params, entry, folder, **options)` reads what
`entry.inputs` names, writes PNG files into the folder and returns a title and a caption. The others are given images or
features and return heat or positions.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.data.store import Store
from pipeline.errors import ParamsError, did_you_mean
from pipeline.params import Params, Visualisation, check_options
from pipeline.visualise import draw

SPLIT = "test"


def run(params: Params, name: str) -> None:
    """Draws one entry of `visualisations`."""
    entry = params.visualisations[name]
    module = importlib.import_module(f"pipeline.visualise.{entry.module}")
    methods = module.METHODS
    where = f"visualisations.{name}"
    if entry.method not in methods:
        raise ParamsError(
            f"{paths.PARAMS} {where}.method: unknown {entry.method!r}; {did_you_mean(entry.method, methods)}"
        )
    method = methods[entry.method]
    options = dict(entry.options)
    draws = getattr(module, "DRAWS", False)
    num_images = 0 if draws else options.pop("num_images", 12)
    check_options(method, options, f"{where}.options")
    with paths.written_whole(paths.visualisation_report(name)) as folder:
        folder.mkdir()
        if draws:
            title, caption = method(params, entry, folder, **options)
        elif entry.inputs.startswith("features/"):
            title, caption = _map(params, entry, method, options, folder)
        else:
            title, caption = _heat(params, entry, method, options, num_images, folder)
        description = {"title": title, "caption": caption, "module": entry.module, "method": entry.method}
        paths.write_json(folder / "visualisation.json", description)


def _map(params: Params, entry: Visualisation, method: Any, options: dict[str, Any], folder: Path) -> tuple[str, str]:
    """A feature space as points coloured by class, and as the images themselves."""
    from pipeline.visualise import points

    source = paths.inputs(entry.inputs)
    info, description = feature_files.describe(source)
    split = feature_files.read(source, SPLIT)
    positions = method(split.features.astype(np.float64), params.defaults.seed, **options)
    points.scatter(folder / "points.png", positions, split.labels, info)
    store = Store(paths.raw(entry.dataset)).split(SPLIT)
    draw.save(folder / "images.png", points.images_at(positions, [sample.image for sample in store]))
    title = f"{entry.method.upper()} of {description['backbone']} features"
    return (
        title,
        f"{len(positions)} images of the {SPLIT} split of {entry.dataset}, placed by likeness of their features.",
    )


def _heat(
    params: Params, entry: Visualisation, method: Any, options: dict[str, Any], num_images: int, folder: Path
) -> tuple[str, str]:
    """A classifier's heat maps beside the images they explain."""
    import torch

    from pipeline.data.loader import Loader
    from pipeline.models import tasks
    from pipeline.training import checkpoint as checkpoints
    from pipeline.training import seeding

    seeding.set_up(params.defaults)
    checkpoint = checkpoints.load(paths.inputs(entry.inputs))
    model = tasks.restore(checkpoint.model, checkpoint.info, checkpoint.model_params, checkpoint.arrays)
    if not isinstance(model, tasks.Classification):
        raise ParamsError(
            f"{paths.PARAMS} {entry.inputs}: {entry.method} explains classifiers, not {checkpoint.model}; fix: name one"
        )
    split = Store(paths.raw(entry.dataset)).split(SPLIT)
    chosen = np.linspace(0, len(split) - 1, num=min(num_images, len(split))).astype(int)
    height, width = checkpoint.info.image_size or (0, 0)
    batch = next(Loader(split, len(chosen), (height, width)).batches(chosen)).to("cpu")
    network: Any = model.network
    with torch.no_grad():
        probabilities = network(batch.images).softmax(1)
    classes = probabilities.argmax(1)
    heat = method(network, batch.images, classes, **options)
    pictures, captions = [], []
    for i in range(len(chosen)):
        image = (batch.images[i].detach() * 255).round().byte().permute(1, 2, 0).numpy()
        image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        assert batch.labels is not None
        truth, found = (checkpoint.info.classes[int(c)] for c in (batch.labels[i], classes[i]))
        pictures += [image, draw.heat(image, heat[i])]
        captions += [f"truth: {truth}", f"{found} {float(probabilities[i].max()):.0%}"]
    draw.save(folder / "heat.png", draw.grid(pictures, columns=6, captions=captions, cell=120))
    title = f"{entry.method.replace('_', '-')} of {entry.inputs.split('/')[-1]}"
    return (
        title,
        f"What speaks for the predicted class, on {len(chosen)} images of the {SPLIT} split of {entry.dataset}.",
    )
