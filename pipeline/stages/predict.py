"""Applies a trained run to a split. Reads its inputs and checkpoint; writes raw outputs to data/predictions/<run>."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.params import Params, Run, is_fitted
from pipeline.progress import progress
from pipeline.training import checkpoint as checkpoints
from pipeline.training import fitting
from pipeline.training.inference import SCHEMAS, Network


def run(params: Params, name: str) -> None:
    """Predicts the split that a run's `prediction` names, with the weights of each of its seeds."""
    training = params.runs[name].training
    with paths.written_whole(paths.predictions(name)) as folder:
        _write(params, name, paths.checkpoint(name), folder)
        for seed in training.seeds[1:] if training else []:
            _write(params, name, paths.of_seed(paths.checkpoint(name), seed), paths.of_seed(folder, seed))


def _write(params: Params, name: str, weights: Path, folder: Path) -> None:
    entry = params.runs[name]
    checkpoint = checkpoints.load(weights)
    if is_fitted(entry.model):
        probabilities = fitting.gives_probabilities(entry.model)
        split = feature_files.read(paths.inputs(entry.inputs), entry.prediction.split)
        found = fitting.answers(entry.model, checkpoint.arrays, split.features)
        rows = [{"image_id": image_id, **row} for image_id, row in zip(split.image_ids, found, strict=True)]
    else:
        network = Network(params, checkpoint)
        probabilities = network.probabilities
        rows = list(_predict(entry, network))
    schema = pa.schema({"image_id": pa.string(), **SCHEMAS[entry.task]})
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "predictions.arrow"), schema) as file:
        file.write_table(pa.Table.from_pylist(rows, schema))
    description = {"run": name, "model": entry.model, "task": entry.task, "dataset": entry.dataset}
    content = {**description, "split": entry.prediction.split, "probabilities": probabilities}
    paths.write_json(folder / "info.json", content)


def _predict(entry: Run, network: Network) -> Iterator[dict[str, Any]]:
    from pipeline.data.loader import Loader
    from pipeline.data.store import Store

    split = Store(paths.inputs(entry.images)).split(entry.prediction.split)
    loader = Loader(split, entry.prediction.batch_size, network.image_size)
    for batch in progress(loader.batches(), "predict", len(loader)):
        for image_id, row in zip(batch.image_ids, network.rows(batch), strict=True):
            yield {"image_id": image_id, **row}
