"""Applies a trained run to a split. Reads its inputs and checkpoint; writes raw outputs to data/predictions/<run>."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.params import Params, Run, is_fitted
from pipeline.progress import progress
from pipeline.structures import Batch
from pipeline.training import checkpoint as checkpoints
from pipeline.training import fitted
from pipeline.training.inference import SCHEMAS, Network, mean
from pipeline.training.launching import launch, num_processes
from pipeline.training.seeding import is_main


def run(params: Params, name: str) -> None:
    """Predicts the split that a run's `prediction` names, with the weights of each of its seeds.

    The answers of the run are those of the first seed, with the others' in folders of their own; of an ensemble they
    are the means over all seeds, each of which has its own folder.
    """
    entry, weights = params.runs[name], paths.checkpoint(name)
    seeds = entry.training.seeds if entry.training else []
    if not is_fitted(entry.model):
        launch(params.defaults.launch, "predict", name)
    first, probabilities = _answers(params, name, weights)
    others = {seed: _answers(params, name, paths.of_seed(weights, seed))[0] for seed in seeds[1:]}
    if not is_main():
        return
    with paths.written_whole(paths.predictions(name)) as folder:
        if entry.prediction.ensemble:
            members = {seeds[0]: first, **others}
            means = [
                {"image_id": rows[0]["image_id"], **mean([{"scores": row["scores"]} for row in rows])}
                for rows in zip(*members.values(), strict=True)
            ]
            _write(entry, name, folder, means, probabilities, members=list(members))
            others = members
        else:
            _write(entry, name, folder, first, probabilities)
        for seed, rows in others.items():
            _write(entry, name, paths.of_seed(folder, seed), rows, probabilities)


def _answers(params: Params, name: str, weights: Path) -> tuple[list[dict[str, Any]], bool]:
    """The rows of all images of the split, and whether their scores are probabilities."""
    entry = params.runs[name]
    checkpoint = checkpoints.load(weights)
    if is_fitted(entry.model):
        probabilities = fitted.gives_probabilities(entry.model)
        split = feature_files.read(paths.inputs(entry.inputs), entry.prediction.split)
        found = fitted.answers(entry.model, checkpoint.arrays, split.features)
        rows = [{"image_id": image_id, **row} for image_id, row in zip(split.image_ids, found, strict=True)]
        return rows, probabilities
    network = Network(params, checkpoint, entry.prediction.augment, fold=entry.prediction.fold)
    return _predict(entry, network), network.probabilities


def _write(
    entry: Run, name: str, folder: Path, rows: list[dict[str, Any]], probabilities: bool, members: Sequence[int] = ()
) -> None:
    schema = pa.schema({"image_id": pa.string(), **SCHEMAS[entry.task]})
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "predictions.arrow"), schema) as file:
        file.write_table(pa.Table.from_pylist(rows, schema))
    description = {"run": name, "model": entry.model, "task": entry.task, "dataset": entry.dataset}
    content = {**description, "split": entry.prediction.split, "probabilities": probabilities}
    if members:
        content["members"] = list(members)
    if entry.prediction.augment:
        content["views"] = list(entry.prediction.augment)
    paths.write_json(folder / "info.json", content)


def _predict(entry: Run, network: Network) -> list[dict[str, Any]]:
    """The rows of the split; of several processes each answers every other batch or so, and has the rows of all."""
    from pipeline.data.loader import Loader
    from pipeline.data.store import Store

    split = Store(paths.inputs(entry.images)).split(entry.prediction.split)
    loader = Loader(split, entry.prediction.batch_size, network.image_size)
    if num_processes() == 1:
        return list(_rows(network, progress(loader.batches(), "predict", len(loader))))
    from pipeline.training.distributed import Processes

    processes = Processes(network.compute)
    positions = processes.whole_batches(len(split), entry.prediction.batch_size)
    found = processes.gather(list(zip(positions.tolist(), _rows(network, loader.batches(positions)), strict=True)))
    return [row for _, row in sorted((pair for share in found for pair in share), key=itemgetter(0))]


def _rows(network: Network, batches: Iterable[Batch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for image_id, row in zip(batch.image_ids, network.rows(batch), strict=True):
            yield {"image_id": image_id, **row}
