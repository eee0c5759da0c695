"""Applies a trained run to a split. Reads its inputs and checkpoint; writes raw outputs to data/predictions/<run>."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.params import Params, Run
from pipeline.progress import progress
from pipeline.structures import Prediction
from pipeline.training import checkpoint as checkpoints

BOXES = pa.list_(pa.list_(pa.float32(), 4))
SCHEMAS = {
    "classification": {"scores": pa.list_(pa.float32())},
    "detection": {"boxes": BOXES, "scores": pa.list_(pa.float32()), "labels": pa.list_(pa.int32())},
    "segmentation": {"label_map": pa.binary()},
}


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
    is_head = entry.model.startswith("heads/")
    probabilities = entry.task == "classification"
    if is_head:
        head = importlib.import_module(f"pipeline.models.{entry.model.replace('/', '.')}")
        probabilities = head.PROBABILITIES
        split = feature_files.read(paths.inputs(entry.inputs), entry.prediction.split)
        scores = head.scores(checkpoint.arrays, split.features)
        rows = [{"image_id": i, "scores": s} for i, s in zip(split.image_ids, scores, strict=True)]
    else:
        rows = list(_predict(params, entry, checkpoint))
    schema = pa.schema({"image_id": pa.string(), **SCHEMAS[entry.task]})
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "predictions.arrow"), schema) as file:
        file.write_table(pa.Table.from_pylist(rows, schema))
    description = {"run": name, "model": entry.model, "task": entry.task, "dataset": entry.dataset}
    content = {**description, "split": entry.prediction.split, "probabilities": probabilities}
    paths.write_json(folder / "info.json", content)


def _predict(params: Params, entry: Run, checkpoint: checkpoints.Checkpoint) -> Iterator[dict[str, Any]]:
    import torch

    from pipeline.data.loader import Loader
    from pipeline.data.store import Store
    from pipeline.models import tasks
    from pipeline.training import seeding

    compute = seeding.set_up(params.defaults)
    model: Any = tasks.restore(checkpoint.model, checkpoint.info, checkpoint.model_params, checkpoint.arrays)
    model.to(compute.device)
    split = Store(paths.inputs(entry.inputs)).split(entry.prediction.split)
    assert checkpoint.info.image_size is not None
    height, width = checkpoint.info.image_size
    loader = Loader(split, entry.prediction.batch_size, (height, width))
    for batch in progress(loader.batches(), "predict", len(loader)):
        with torch.inference_mode(), compute.autocast():
            predictions = model.predict(batch.images.to(compute.device))
        for image_id, size, prediction in zip(batch.image_ids, batch.sizes, predictions, strict=True):
            yield {"image_id": image_id, **_columns(prediction, (height, width), size)}


def _columns(prediction: Prediction, size: tuple[int, int], original: tuple[int, int]) -> dict[str, Any]:
    """The columns of one image, boxes and maps brought back from the model's size to the original's (height, width)."""
    if prediction.label_map is not None:
        from pipeline.data.store import encode_png

        rows, columns = (((np.arange(o) + 0.5) * s / o).astype(int) for o, s in zip(original, size, strict=True))
        return {"label_map": encode_png(prediction.label_map[rows][:, columns])}
    if prediction.boxes is not None:
        scale = np.array([original[1] / size[1], original[0] / size[0]] * 2, np.float32)
        return {
            "boxes": list(prediction.boxes * scale),
            "scores": prediction.scores,
            "labels": prediction.labels,
        }
    return {"scores": prediction.scores}
