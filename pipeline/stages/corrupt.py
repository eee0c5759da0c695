"""Scores a run on corrupted images. Reads its checkpoint and the raw store; writes reports/robustness/<name>."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.data.corruptions import CORRUPTIONS, GROUPS, corrupted
from pipeline.data.pool import ordered_map
from pipeline.data.store import Split, Store
from pipeline.errors import ParamsError, did_you_mean
from pipeline.metrics import lookup, table
from pipeline.params import Params, Robustness, Run
from pipeline.progress import progress
from pipeline.reporting.verdicts import Predictions
from pipeline.training import checkpoint as checkpoints
from pipeline.training.inference import SCHEMAS, predictor, weights

CLEAN = "clean"


class Case(NamedTuple):
    """One image under one corruption; severity 0 of CLEAN is the image itself."""

    corruption: str
    severity: int
    position: int


def run(params: Params, name: str) -> None:
    """Evaluates one entry of `robustness`."""
    entry = params.robustness[name]
    run_entry = params.runs[entry.run]
    metric = lookup(run_entry.task, entry.metric)
    if metric is None or not metric.higher_is_better:
        fit = [key for key, value in table(run_entry.task).items() if value.higher_is_better]
        raise ParamsError(
            f"{paths.PARAMS} robustness.{name}.metric: no metric of {run_entry.task} that grows with quality "
            f"({entry.metric!r}); {did_you_mean(entry.metric, fit)}"
        )
    folder, split_name = paths.raw(run_entry.dataset), run_entry.prediction.split
    whole = Store(folder).split(split_name)
    num = min(entry.num_images or len(whole), len(whole))
    chosen = np.unique(np.linspace(0, len(whole) - 1, num).astype(int))
    split = Split(whole.table.take(chosen), whole.info)
    pairs = [(CLEAN, 0)] + [(c, s) for c in entry.corruptions or CORRUPTIONS for s in sorted(set(entry.severities))]
    cases = [Case(corruption, severity, int(index)) for corruption, severity in pairs for index in chosen]
    _split.cache_clear()  # this process may have read a folder of the same name before
    make = functools.partial(_image, folder=folder, split=split_name, seed=params.defaults.seed)
    images = progress(ordered_map(make, cases), f"corrupt {name}", total=len(cases))
    scores = dict(zip(pairs, _scores(params, run_entry, entry, split, images), strict=True))
    report = paths.robustness_report(name)
    with paths.written_whole(report / "pictures") as pictures:
        pictures.mkdir()
        _draw(pictures, entry, scores, whole.read(int(chosen[len(chosen) // 2])).image, params.defaults.seed)
    paths.write_json(report / "metrics.json", _summary(entry, run_entry, scores, split))


@functools.cache
def _split(folder: Path, split: str) -> Split:
    return Store(folder).split(split)


def _image(case: Case, *, folder: Path, split: str, seed: int) -> np.ndarray:
    """[H, W, C] uint8."""
    sample = _split(folder, split).read(case.position)
    if case.corruption == CLEAN:
        return sample.image
    return corrupted(sample.image, case.corruption, case.severity, seed=seed, image_id=sample.image_id)


def _scores(
    params: Params, run_entry: Run, entry: Robustness, split: Split, images: Iterator[np.ndarray]
) -> Iterator[float | None]:
    """The metric on each full round of the split's images."""
    predict = predictor(params, run_entry, *(checkpoints.load(folder) for folder in weights(run_entry, entry.run)))
    judge = importlib.import_module(f"pipeline.reporting.verdicts.{run_entry.task}").judge
    image_ids = split.column("image_id")
    schema = pa.schema({"image_id": pa.string(), **SCHEMAS[run_entry.task]})
    fix = f"dvc repro --force train@{entry.run}"
    batch_size = run_entry.prediction.batch_size
    for first in images:
        rows: list[dict[str, Any]] = []
        batch = [first]
        while len(rows) + len(batch) < len(split):
            if len(batch) == batch_size:
                rows += predict(batch)
                batch = []
            batch.append(next(images))
        rows += predict(batch)
        rows = [{"image_id": image_id, **row} for image_id, row in zip(image_ids, rows, strict=True)]
        answers = pa.Table.from_pylist(rows, schema)
        predictions = Predictions(f"predictions of {entry.run}", fix, answers, {"probabilities": predict.probabilities})
        value = judge(predictions, split, run_entry.evaluation).metrics[entry.metric]
        yield value


def _summary(
    entry: Robustness, run_entry: Run, scores: dict[tuple[str, int], float | None], split: Split
) -> dict[str, Any]:
    """The content of metrics.json.

    `mpc` and `rpc` are the mean performance under corruption and its share of that on clean images (Michaelis et al.
    2019, equations 1 and 2); `corruption_error` is the mean of 1 - metric over corruptions and severities, and
    `corruption_error_over_clean` its ratio to that on clean images. An undefined figure makes its means undefined.
    """
    clean = scores[CLEAN, 0]
    names = list(dict.fromkeys(corruption for corruption, _ in scores if corruption != CLEAN))
    severities = sorted({severity for _, severity in scores if severity})
    mpc = _mean([scores[name, severity] for name in names for severity in severities])
    error = None if mpc is None else 1 - mpc
    group_of = {name: group for group, members in GROUPS.items() for name in members}
    rows = []
    for name in names:
        values = [scores[name, severity] for severity in severities]
        by_severity = {f"severity_{severity}": value for severity, value in zip(severities, values, strict=True)}
        rows.append({"corruption": name, "group": group_of[name], "mean": _mean(values), **by_severity})
    summary = {
        f"clean_{entry.metric}": clean,
        "mpc": mpc,
        "rpc": _ratio(mpc, clean),
        "corruption_error": error,
        "corruption_error_over_clean": _ratio(error, None if clean is None else 1 - clean),
        "per_corruption": rows,
        "protocol": [
            ["run", entry.run],
            ["task", run_entry.task],
            ["dataset", run_entry.dataset],
            ["split", run_entry.prediction.split],
            ["num_images", len(split)],
            ["metric", entry.metric],
            ["severities", severities],
            ["strengths", "of ImageNet-C, lengths scaled to the image; departures stand in data/corruptions.py"],
            ["baseline", "the run itself on clean images, not AlexNet as in Hendrycks and Dietterich 2019"],
        ],
    }
    return _rounded(summary)


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else float(np.mean(np.array(values, float)))


def _ratio(value: float | None, of: float | None) -> float | None:
    return None if value is None or not of else value / of


def _rounded(content: Any) -> Any:
    """Six digits: the last ones of float64 differ between machines."""
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return float(f"{content:.6g}") if isinstance(content, float) else content


def _draw(
    folder: Path, entry: Robustness, scores: dict[tuple[str, int], float | None], image: np.ndarray, seed: int
) -> None:
    """The metric by corruption and severity, and what one image looks like under each corruption."""
    from pipeline.reporting import plots
    from pipeline.visualise import draw

    names = list(dict.fromkeys(corruption for corruption, _ in scores))
    severities = sorted({severity for _, severity in scores if severity})
    values = np.full((len(names), len(severities)), np.nan)
    for row, name in enumerate(names):
        for column, severity in enumerate(severities):
            value = scores[(CLEAN, 0) if name == CLEAN else (name, severity)]
            values[row, column] = np.nan if value is None else value
    titles = [name.replace("_", " ") for name in names]
    label = f"{entry.metric} by severity"
    plots.shaded_table(folder / "severities.png", values, titles, [str(s) for s in severities], label=label)
    shown = [(CLEAN, 0), *((name, severities[len(severities) // 2]) for name in names[1:])]
    images = [
        image if name == CLEAN else corrupted(image, name, severity, seed=seed, image_id="shown")
        for name, severity in shown
    ]
    captions = [f"{name.replace('_', ' ')} {severity or ''}" for name, severity in shown]
    draw.save(folder / "corruptions.png", draw.grid(images, columns=4, captions=captions, cell=160))
