"""Trains a run or a generator. Reads its inputs and params; writes data/checkpoints/<name> and training.csv."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.errors import PipelineError
from pipeline.params import Generator, Params, Run, check_options
from pipeline.training.checkpoint import Checkpoint, Snapshots, run_digest, save


def run(params: Params, name: str) -> None:
    """Trains one entry of `runs` or `generators`."""
    entry = params.learner(name)
    if entry.model.startswith("heads/"):
        checkpoint, rows = _head(params, name, entry)
        save(paths.checkpoint(name), checkpoint)
    else:
        seed, *more = (entry.training and entry.training.seeds) or [params.defaults.seed]
        with paths.written_whole(paths.checkpoint(name)) as folder:
            checkpoint, rows = _network(params, name, entry, seed)
            save(folder, checkpoint)
            for other in more:
                save(paths.of_seed(folder, other), _network(params, name, entry, other)[0])
    report = paths.generator_report(name) if isinstance(entry, Generator) else paths.run_report(name)
    _write_csv(report / "training.csv", rows)


def _head(params: Params, name: str, entry: Run | Generator) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Fits a head on stored features; its one row of the log holds log-loss and accuracy."""
    head = importlib.import_module(f"pipeline.models.{entry.model.replace('/', '.')}")
    check_options(head.fit, entry.model_params, f"runs.{name}.model_params")
    folder = paths.inputs(entry.inputs)
    info, _ = feature_files.describe(folder)
    splits = {split: feature_files.read(folder, split) for split in ("train", "val")}
    train = splits["train"]
    if train.labels is None:
        raise PipelineError(f"{folder}: its images have no class labels, which {entry.model} needs")
    arrays = head.fit(train.features, train.labels, len(info.classes), params.defaults.seed, **entry.model_params)
    row: dict[str, float] = {"epoch": 1}
    for prefix, split in (("", train), ("val_", splits["val"])):
        assert split.labels is not None
        scores = head.scores(arrays, split.features)
        if head.PROBABILITIES:
            of_truth = scores[np.arange(len(scores)), split.labels]
            row[f"{prefix}loss"] = float(-np.log(np.maximum(of_truth, 1e-7)).mean())
        else:  # multiclass hinge loss of the distances (Crammer and Singer 2001)
            of_truth = scores[np.arange(len(scores)), split.labels, None]
            others = np.where(np.arange(scores.shape[1]) == split.labels[:, None], -np.inf, scores)
            row[f"{prefix}loss"] = float(np.maximum(0, 1 + others.max(1, keepdims=True) - of_truth).mean())
        row[f"{prefix}top1"] = float((scores.argmax(1) == split.labels).mean())
    return Checkpoint(entry.model, entry.model_params, info, arrays), [row]


def _network(params: Params, name: str, entry: Run | Generator, seed: int) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Trains a network from a seed, or goes on with a training that was interrupted."""
    from pipeline.data.loader import Loader, common_size
    from pipeline.data.store import Store
    from pipeline.models import tasks
    from pipeline.training import loop, seeding

    training: Any = entry.training
    defaults = params.defaults.model_copy(update={"seed": seed})
    compute = seeding.set_up(defaults)
    folder = paths.inputs(entry.inputs)
    store = Store(folder)
    size = common_size(store.split("train"), training.image_size)
    info = tasks.at_size(store.info, size)
    train, val = (Loader(store.split(split), training.batch_size, size) for split in ("train", "val"))
    mapping = "generators" if isinstance(entry, Generator) else "runs"
    check_options(tasks.builder(entry.model), entry.model_params, f"{mapping}.{name}.model_params")
    model = tasks.build(entry.model, info, entry.model_params, training)
    settings = {"entry": entry.model_dump(include={"model", "inputs", "model_params", "training"})}
    settings |= {"defaults": defaults.model_dump()}
    rows = loop.fit(
        model,
        train,
        val,
        training,
        seed=seed,
        compute=compute,
        snapshots=Snapshots(name, seed, run_digest(settings, folder)),
    )
    arrays = {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    return Checkpoint(entry.model, entry.model_params, info, arrays), rows


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per epoch, six significant digits."""
    lines = [",".join(rows[0])] + [",".join(f"{value:.6g}" for value in row.values()) for row in rows]
    with paths.written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
