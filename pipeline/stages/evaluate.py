"""Scores predictions or samples. Reads them and the truth; writes metrics.json, per_image.parquet, pictures."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import paths
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from pipeline.params import Generator, Params, Run
from pipeline.reporting import gallery
from pipeline.reporting.verdicts import Predictions, Verdict, digest
from pipeline.structures import SPLITS

TRUTH = {"classification": "label", "detection": "objects", "segmentation": "semantic", "regression": "target"}
"""The column of a store that a task is judged by."""


def run(params: Params, name: str) -> None:
    """Evaluates a run or a generator."""
    entry = params.learner(name)
    if isinstance(entry, Generator):
        _write(paths.generator_report(name), _judge_samples(entry, name))
    else:
        _write(paths.run_report(name), _judge_run(entry, name))


def _judge_run(entry: Run, name: str) -> Verdict:
    split = Store(paths.raw(entry.dataset)).split(entry.prediction.split)
    truth = TRUTH[entry.task]
    if truth not in split.table.column_names or split.table.column(truth).null_count:
        raise PipelineError(
            f"{paths.raw(entry.dataset)} {truth}: not every image of {entry.prediction.split} has one; "
            f"fix: choose a dataset with the truth that {entry.task} needs"
        )
    folder, image_ids = paths.predictions(name), split.column("image_id")
    predictions = _read_predictions(entry, name, folder, image_ids)
    judge = importlib.import_module(f"pipeline.reporting.verdicts.{entry.task}").judge
    verdict: Verdict = judge(predictions, split, entry.evaluation)
    _introduce(verdict, entry, entry.prediction.split, image_ids)
    verdict.protocol.append(("truth", f"sha256 {digest(map(repr, split.column(truth)))}"))
    family = importlib.import_module(f"pipeline.metrics.{entry.task}")
    groups = split.column("group") if "group" in split.table.column_names else None
    verdict.add_intervals(family.resampled, groups)
    if groups is not None:
        verdict.per_image = verdict.per_image.append_column("group", pa.array(groups, pa.string()))
    seeds = entry.training.seeds if entry.training else []
    members = predictions.info.get("members")  # of an ensemble: its own answers are none of a seed
    others = [paths.of_seed(folder, seed) for seed in (members or seeds[1:])]
    if members:
        verdict.protocol.append(("ensemble", f"mean of the answers of {len(members)} seeds"))
    if views := predictions.info.get("views"):
        verdict.protocol.append(
            ("test_time_augmentation", f"mean over views of each image: itself, {', '.join(views)}")
        )
    if others:
        again = (judge(_read_predictions(entry, name, other, image_ids), split, entry.evaluation) for other in others)
        first = [] if members else [verdict.metrics]
        verdict.tables["seeds"] = _spread([*first, *(one.metrics for one in again)])
    return verdict


def _spread(figures: list[dict[str, float | None]]) -> list[list[Any]]:
    """For each metric that all seeds define: its name, mean, standard deviation (of a sample), and every value."""
    rows: list[list[Any]] = []
    for metric in figures[0]:
        values = [one[metric] for one in figures]
        if all(value is not None for value in values):
            known = np.array(values, np.float64)
            rows.append([metric, float(known.mean()), float(known.std(ddof=1)), *values])
    return rows


def _read_predictions(entry: Run, name: str, folder: Path, image_ids: list[str]) -> Predictions:
    """A run's outputs in the order of `image_ids`.

    Raises:
        PipelineError: they are of another split or dataset, or an image of the split was not predicted exactly once.
    """
    fix = f"dvc repro --force predict@{name}"
    table, info = _read_table(folder, "predictions.arrow", fix)
    wanted = {"task": entry.task, "dataset": entry.dataset, "split": entry.prediction.split}
    for key, value in wanted.items():
        if info.get(key) != value:
            raise PipelineError(f"{folder / 'info.json'} {key}: {info.get(key)!r}, not {value!r}; fix: {fix}")
    predictions = Predictions(str(folder / "predictions.arrow"), fix, table, info)
    counts = Counter(predictions.image_ids)
    for image_id, count in counts.items():
        if count > 1:
            raise predictions.fault(image_id, "image_id", f"predicted {count} times")
    for image_id in image_ids:
        if image_id not in counts:
            raise predictions.fault(image_id, "image_id", f"an image of {entry.prediction.split} without prediction")
    for image_id in sorted(set(counts) - set(image_ids))[:1]:
        raise predictions.fault(image_id, "image_id", f"no image of {entry.dataset}, {entry.prediction.split}")
    rows = {image_id: row for row, image_id in enumerate(predictions.image_ids)}
    predictions.table = table.take([rows[image_id] for image_id in image_ids])
    return predictions


def _judge_samples(entry: Generator, name: str) -> Verdict:
    from pipeline.data import features as feature_files
    from pipeline.metrics import generative as metrics
    from pipeline.reporting.verdicts import generative

    folder, fix = paths.samples(name), f"dvc repro --force sample@{name}"
    table, info = _read_table(folder, "samples.arrow", fix)
    place, reference = paths.features(entry.features), entry.evaluation.reference
    space = _read_json(place / "features.json", f"dvc repro --force extract@{entry.features}")
    if info.get("features") != space:
        what = f"of another space ({info.get('features')}) than {place} ({space})"
        raise PipelineError(f"{folder / 'info.json'} features: {what}; fix: {fix}")
    features = feature_files.matrix(table.column("features"))
    for index in np.flatnonzero(~np.isfinite(features).all(1))[:1]:
        raise PipelineError(f"{folder / 'samples.arrow'}#{index} features: not finite; fix: {fix}")
    kinds = np.array(table.column("kind").to_pylist())
    images = table.column("image").to_pylist()
    samples = generative.Samples(
        images=[image for image, kind in zip(images, kinds, strict=True) if kind == "sample"],
        features=features[kinds == "sample"],
        noise=features[kinds == "noise"],
        space=space,
    )
    store = Store(paths.inputs(entry.inputs))
    known = feature_files.read(place, reference)
    others = next((s for s in reversed(SPLITS) if s in store.info.counts and s != reference), None)
    other = feature_files.read(place, others) if others else None
    real = generative.Real(
        split=store.split(reference),
        image_ids=known.image_ids,
        features=known.features,
        others=other.features if other else known.features[:0],
        other_ids=other.image_ids if other else [],
        others_split=others or "no split",
    )
    verdict = generative.judge(samples, real, name)
    _introduce(verdict, entry, reference, known.image_ids)
    verdict.add_intervals(metrics.resampled, groups=None)
    return verdict


def _introduce(verdict: Verdict, entry: Run | Generator, split: str, image_ids: list[str]) -> None:
    """Puts before the rules of a task what was judged, and on which images."""
    verdict.protocol[:0] = [
        ("task", entry.task),
        ("dataset", entry.dataset),
        ("split", split),
        ("num_images", len(image_ids)),
        ("image_ids", f"sha256 {digest(image_ids)}"),
    ]


def _read_table(folder: Path, name: str, fix: str) -> tuple[pa.Table, dict[str, Any]]:
    """An Arrow file and the info.json beside it."""
    info = _read_json(folder / "info.json", fix)
    try:
        with pa.ipc.open_file(str(folder / name)) as file:
            return file.read_all(), info
    except (OSError, pa.ArrowInvalid) as error:
        raise PipelineError(f"{folder / name}: not readable ({str(error).splitlines()[0]}); fix: {fix}") from None


def _read_json(path: Path, fix: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: not readable ({type(error).__name__}); fix: {fix}") from None


def _write(folder: Path, verdict: Verdict) -> None:
    with paths.written_whole(folder / "pictures") as temporary:
        temporary.mkdir()
        verdict.draw(temporary)
    with paths.written_whole(folder / "per_image.parquet") as temporary:
        pq.write_table(verdict.per_image, temporary, compression="zstd")
    if verdict.show is not None:
        items, colours = verdict.show()
        paths.write_json(folder / "gallery.json", gallery.content(items, colours))
    paths.write_json(folder / "metrics.json", verdict.to_json())
